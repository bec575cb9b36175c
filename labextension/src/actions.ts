/**
 * What only the browser knows of notebooks, sent through the events service; only where the site has it switched on.
 */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { JSONObject } from '@lumino/coreutils';

import { Outbox } from './outbox';
import { Recorder, SCHEMAS } from './recorder';

type Action =
  | 'opened'
  | 'closed'
  | 'saved'
  | 'cell_added'
  | 'cell_removed'
  | 'cell_moved'
  | 'cell_pasted'
  | 'visible'
  | 'hidden';

export function reportActions(app: JupyterFrontEnd, tracker: INotebookTracker, recorder: Recorder): void {
  const events = app.serviceManager.events;
  const outbox = new Outbox<JSONObject>(
    data => events.emit({ schema_id: `${SCHEMAS}notebook_action/v1`, version: '1', data }),
    (run, milliseconds) => window.setTimeout(run, milliseconds)
  );
  const seen = new Map<NotebookPanel, boolean>();

  const report = (panel: NotebookPanel, action: Action, cell?: string): void => {
    if (!recorder.policy?.actions) {
      return;
    }
    const data: JSONObject = { action, notebook: panel.context.localPath };
    if (cell !== undefined) {
      data.cell_id = cell;
    }
    if (panel.model) {
      data.cells = panel.model.cells.length;
    }
    outbox.put(data);
  };

  const look = (): void => {
    for (const [panel, before] of seen) {
      const now = panel.isVisible && document.visibilityState === 'visible';
      if (now !== before) {
        seen.set(panel, now);
        report(panel, now ? 'visible' : 'hidden');
      }
    }
  };

  const follow = (panel: NotebookPanel): void => {
    if (!panel.isDisposed) {
      report(panel, 'opened');
      seen.set(panel, false);
      look();
      panel.model?.cells.changed.connect((_, change) => {
        if (change.type === 'add' || change.type === 'remove' || change.type === 'move') {
          const cells = change.type === 'remove' ? change.oldValues : change.newValues;
          const done = { add: 'cell_added', remove: 'cell_removed', move: 'cell_moved' } as const;
          report(panel, done[change.type], cells.length === 1 ? cells[0]?.id : undefined);
        }
      });
      panel.context.saveState.connect((_, state) => {
        if (state === 'completed') {
          report(panel, 'saved');
        }
      });
    }
  };

  tracker.widgetAdded.connect((_, panel) => {
    void Promise.all([panel.context.ready, recorder.ready])
      .then(() => follow(panel))
      .catch(() => undefined); // JupyterLab says what is wrong with the file.
    panel.disposed.connect(() => {
      seen.delete(panel);
      report(panel, 'closed');
    });
  });
  tracker.currentChanged.connect(() => window.setTimeout(look, 0));
  document.addEventListener('visibilitychange', look);
  app.commands.commandExecuted.connect((_, { id }) => {
    if (id.startsWith('notebook:paste-') && tracker.currentWidget) {
      report(tracker.currentWidget, 'cell_pasted', tracker.activeCell?.model.id);
    }
  });
}
