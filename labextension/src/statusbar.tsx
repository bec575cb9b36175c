/**
 * The item in the status bar: whether anything is recorded, and how far delivery is; pressed, it opens the panel.
 */

import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { Recorder } from './recorder';
import { ITranslate, stateOf } from './words';

export class StatusItem extends ReactWidget {
  constructor(
    private readonly recorder: Recorder,
    private readonly trans: ITranslate,
    private readonly openPanel: () => void
  ) {
    super();
    this.addClass('jp-ExecEvents-status');
  }

  protected render(): JSX.Element {
    return (
      <UseSignal signal={this.recorder.changed}>
        {() => {
          const state = stateOf(this.recorder, this.trans);
          return (
            <button type="button" title={state.detail} onClick={this.openPanel}>
              <span aria-hidden="true">{state.sign}</span> {state.text}
            </button>
          );
        }}
      </UseSignal>
    );
  }
}
