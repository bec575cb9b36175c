/**
 * The icon of the panel: a sheet with a seal.
 */

import { LabIcon } from '@jupyterlab/ui-components';

export const recordIcon = new LabIcon({
  name: 'exec-events:record',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 16 16">
  <g class="jp-icon3" fill="none" stroke="#616161" stroke-width="1.3">
    <path d="M8.5 13.5H3.5v-11h9v5M5.5 5.5h5M5.5 8.5h2.5" stroke-linecap="round"/>
    <circle cx="11.5" cy="11.5" r="2.6"/>
    <path d="m10.4 11.6.8.8 1.4-1.7" stroke-linecap="round"/>
  </g>
</svg>`
});
