/**
 * The plugins: what the page knows of the recorder, and the parts that show it.
 */

import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';

import { reportActions } from './actions';
import { Api } from './api';
import { Consent } from './consent';
import { recordIcon } from './icon';
import { NotebookMarks } from './notebookmarks';
import { RecordPanel } from './panel';
import { Recorder } from './recorder';
import { StatusItem } from './statusbar';

const DOMAIN = 'exec_events';

const CommandIDs = {
  showPanel: 'exec-events:show-panel',
  verify: 'exec-events:verify-notebook',
  showRecord: 'exec-events:show-record'
} as const;

const IRecorder = new Token<Recorder>('exec-events:IRecorder', 'What the page knows of the recorder.');

const recorder: JupyterFrontEndPlugin<Recorder> = {
  id: 'exec-events:recorder',
  description: 'Asks the server what it records.',
  autoStart: true,
  provides: IRecorder,
  activate: (app: JupyterFrontEnd) => {
    const { events, serverSettings } = app.serviceManager;
    const one = new Recorder(new Api(serverSettings), events.stream);
    void app.restored.then(() => one.start());
    return one;
  }
};

const marks: JupyterFrontEndPlugin<void> = {
  id: 'exec-events:marks',
  description: 'A mark on each cell that was run.',
  autoStart: true,
  requires: [IRecorder, INotebookTracker],
  optional: [ISettingRegistry, ITranslator, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    recorder: Recorder,
    tracker: INotebookTracker,
    registry: ISettingRegistry | null,
    translator: ITranslator | null,
    palette: ICommandPalette | null
  ) => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const open = new Map<NotebookPanel, NotebookMarks>();
    const add = (panel: NotebookPanel): void => {
      open.set(panel, new NotebookMarks(panel, recorder, trans));
      panel.disposed.connect(() => open.delete(panel));
    };
    tracker.forEach(add);
    tracker.widgetAdded.connect((_, panel) => add(panel));

    app.commands.addCommand(CommandIDs.showRecord, {
      label: trans.__('Show the Record of the Selected Cell'),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => recorder.policy !== null && tracker.activeCell !== null,
      execute: () => {
        const { currentWidget, activeCell } = tracker;
        const mark = currentWidget && activeCell && open.get(currentWidget)?.widgetOf(activeCell);
        mark?.toggle();
        mark?.focusButton();
      }
    });
    palette?.addItem({ command: CommandIDs.showRecord, category: trans.__('Record') });

    if (registry !== null) {
      void Promise.all([registry.load(marks.id), app.restored])
        .then(([settings]) => {
          const apply = (): void => {
            document.body.dataset.execEventsMarks = settings.get('show').composite as string;
          };
          apply();
          settings.changed.connect(apply);
        })
        .catch(error => console.warn('exec-events: the settings could not be read', error));
    }
  }
};

const panel: JupyterFrontEndPlugin<void> = {
  id: 'exec-events:panel',
  description: 'The side panel, the item in the status bar, and the question for consent.',
  autoStart: true,
  requires: [IRecorder, INotebookTracker],
  optional: [ITranslator, IStatusBar, ICommandPalette, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    recorder: Recorder,
    tracker: INotebookTracker,
    translator: ITranslator | null,
    statusBar: IStatusBar | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null
  ) => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const consent = new Consent(recorder, trans, app.serviceManager.serverSettings.baseUrl);
    const widget = new RecordPanel(recorder, consent, () => tracker.currentWidget, trans);
    widget.title.icon = recordIcon;
    const isThere = (): boolean => recorder.policy !== null || (recorder.trouble ?? 'absent') !== 'absent';
    const show = (): void => {
      arrive();
      app.shell.activateById(widget.id);
    };
    // A server without the recorder gets nothing added to its page.
    const arrive = (): void => {
      if (isThere() && !widget.isAttached) {
        app.shell.add(widget, 'right', { rank: 900 });
        restorer?.add(widget, widget.id);
      }
    };

    const ask = (): void => {
      arrive();
      void consent
        .askOnce()
        .catch(error => console.warn('exec-events: the question for consent failed', error));
    };
    recorder.changed.connect(ask);
    const item = new StatusItem(recorder, trans, show);
    statusBar?.registerStatusItem('exec-events:status', {
      item,
      align: 'right',
      rank: 80,
      isActive: isThere,
      activeStateChanged: recorder.changed
    });

    app.commands.addCommand(CommandIDs.showPanel, {
      label: trans.__('Show What Is Recorded'),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: isThere,
      execute: show
    });
    app.commands.addCommand(CommandIDs.verify, {
      label: trans.__('Verify This Notebook Against the Record'),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => isThere() && tracker.currentWidget !== null,
      execute: () => {
        show();
        widget.verify();
      }
    });
    for (const command of [CommandIDs.showPanel, CommandIDs.verify]) {
      palette?.addItem({ command, category: trans.__('Record') });
    }
  }
};

const actions: JupyterFrontEndPlugin<void> = {
  id: 'exec-events:actions',
  description: 'Sends what only the browser knows, where the site has that switched on.',
  autoStart: true,
  requires: [IRecorder, INotebookTracker],
  activate: (app: JupyterFrontEnd, recorder: Recorder, tracker: INotebookTracker) =>
    reportActions(app, tracker, recorder)
};

export default [recorder, marks, panel, actions];
