/**
 * The marks of one notebook: what happens in it goes to its Records, what they know is shown on its cells.
 */

import { Cell, CodeCell, ICellModel, isCodeCellModel } from '@jupyterlab/cells';
import { NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import { PanelLayout } from '@lumino/widgets';

import { Mark, markOf } from './marks';
import { MarkWidget } from './markwidget';
import type { Recorder } from './recorder';
import { Records } from './records';
import { Slices } from './slices';
import type { ITranslate } from './words';

/** How long nobody may have typed before the server is asked whether a cell is as it was recorded. */
const EDITED_MS = 1_000;
const EVENT_MS = 200;

interface ISharedChange {
  sourceChange?: unknown;
  executionCountChange?: unknown;
}

export class NotebookMarks implements IDisposable {
  constructor(
    private readonly panel: NotebookPanel,
    private readonly recorder: Recorder,
    private readonly trans: ITranslate
  ) {
    this.slices = new Slices(id => this.show(id));
    this.records = new Records(
      cells => recorder.api.cells(panel.context.localPath, cells),
      id => this.models.get(id)?.sharedModel.getSource() ?? null,
      ids => this.slices.add(ids),
      {
        set: (run, milliseconds) => window.setTimeout(run, milliseconds),
        clear: handle => window.clearTimeout(handle as number),
        now: () => performance.now()
      }
    );
    recorder.changed.connect(this.onPolicy, this);
    recorder.recorded.connect(this.onRecorded, this);
    panel.context.pathChanged.connect(this.renew, this);
    panel.disposed.connect(this.dispose, this);
    NotebookActions.executionScheduled.connect(this.onScheduled, this);
    NotebookActions.executed.connect(this.onExecuted, this);
    void panel.context.ready
      .then(() => {
        if (!this.isDisposed) {
          panel.model?.cells.changed.connect(this.onCells, this);
          this.onCells();
        }
      })
      .catch(() => undefined); // JupyterLab says what is wrong with the file.
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.slices.dispose();
    this.records.dispose();
    Signal.clearData(this);
    for (const widget of this.widgets.values()) {
      widget.dispose();
    }
    this.widgets.clear();
    this.models.clear();
    this.cells.clear();
  }

  /** The mark of a cell, where it has one. */
  widgetOf(cell: Cell): MarkWidget | null {
    return this.widgets.get(cell.model.id) ?? null;
  }

  private onCells(): void {
    const cells = this.panel.model?.cells;
    if (!cells) {
      return;
    }
    const gone = new Map(this.models);
    for (const model of cells) {
      const { id } = model;
      // A cell that was moved is another model of the same id.
      if (isCodeCellModel(model) && gone.get(id) !== model) {
        this.remove(id);
        this.add(id, model);
      }
      gone.delete(id);
    }
    for (const id of gone.keys()) {
      this.remove(id);
      this.running.delete(id);
      this.records.forget(id);
    }
  }

  private add(id: string, model: ICellModel): void {
    this.models.set(id, model);
    model.sharedModel.changed.connect(this.onCell, this);
    this.slices.add([id]);
    if (this.recorder.policy !== null && !this.records.has(id)) {
      this.records.want(id, 0);
    }
  }

  private remove(id: string): void {
    this.models.get(id)?.sharedModel?.changed.disconnect(this.onCell, this);
    this.models.delete(id);
    this.widgets.get(id)?.dispose();
    this.widgets.delete(id);
  }

  /** Called for each key: notes the cell, and no more. */
  private onCell(sender: { getId(): string }, change: ISharedChange): void {
    const id = sender.getId();
    if (change.sourceChange !== undefined && this.records.has(id)) {
      this.typed.add(id);
      this.typedAt = performance.now();
      this.typedTimer ??= window.setTimeout(() => this.afterTyping(), EDITED_MS);
    }
    if (change.executionCountChange !== undefined) {
      this.slices.add([id]);
    }
  }

  private afterTyping(): void {
    const rest = this.typedAt + EDITED_MS - performance.now();
    this.typedTimer = null;
    if (this.isDisposed) {
      return;
    }
    if (rest > 0) {
      this.typedTimer = window.setTimeout(() => this.afterTyping(), rest);
      return;
    }
    for (const id of this.typed) {
      this.records.want(id, 0);
    }
    this.typed.clear();
  }

  private onScheduled(_: unknown, { cell }: { cell: Cell }): void {
    if (this.owns(cell)) {
      this.running.add(cell.model.id);
      this.slices.add([cell.model.id]);
    }
  }

  private onExecuted(_: unknown, { cell }: { cell: Cell }): void {
    const id = cell.model.id;
    if (!this.owns(cell)) {
      return;
    }
    this.running.delete(id);
    this.slices.add([id]);
    // A blank cell is not sent to a kernel; where nothing is recorded there is nothing to wait for.
    const ran = cell.model.sharedModel.getSource().trim() !== '' && this.panel.sessionContext.session?.kernel;
    if (ran && this.recorder.policy?.recording) {
      this.records.expect(id);
    } else if (this.recorder.policy !== null) {
      this.records.want(id, 0);
    }
  }

  private onRecorded(_: unknown, id: string | null): void {
    if (id !== null && this.models.has(id)) {
      this.records.want(id, EVENT_MS);
    }
  }

  private onPolicy(): void {
    const { policy, trouble } = this.recorder;
    const key = JSON.stringify([policy?.recording, policy?.consent, policy?.recordingSince, trouble]);
    if (key !== this.policyKey) {
      this.policyKey = key;
      this.renew();
    }
  }

  private renew(): void {
    if (this.recorder.policy !== null && this.recorder.trouble === null) {
      this.records.renew(this.models.keys());
    }
    this.slices.add(this.models.keys());
  }

  private owns(cell: Cell): boolean {
    return this.models.get(cell.model.id) === cell.model;
  }

  private show(id: string): void {
    const mark = this.markOf(id);
    const widget = this.widgets.get(id);
    if (mark === null) {
      widget?.hide();
    } else if (widget !== undefined && !widget.isDisposed) {
      widget.render(mark);
      widget.show();
    } else {
      this.attach(id, mark);
    }
  }

  private attach(id: string, mark: Mark): void {
    const cell = this.cellOf(id);
    if (!(cell instanceof CodeCell)) {
      return;
    }
    const { layout } = cell;
    if (!cell.inputArea || !(layout instanceof PanelLayout)) {
      // Cells out of sight have no parts yet; the mark comes after them, in a slice of its own.
      if (!this.awaited.has(cell)) {
        this.awaited.add(cell);
        void cell.ready.then(() => this.slices.add([id]));
      }
      return;
    }
    const widget = new MarkWidget(this.trans);
    this.widgets.set(id, widget);
    widget.render(mark);
    layout.addWidget(widget);
  }

  private cellOf(id: string): Cell | undefined {
    const known = this.cells.get(id);
    if (known !== undefined && !known.isDisposed && known.model === this.models.get(id)) {
      return known;
    }
    this.cells = new Map(this.panel.content.widgets.map(cell => [cell.model.id, cell]));
    return this.cells.get(id);
  }

  private markOf(id: string): Mark | null {
    const model = this.models.get(id);
    if (model === undefined || !isCodeCellModel(model)) {
      return null;
    }
    const { record, asked, pending, expected, missing } = this.records.known(id);
    return markOf(
      {
        executed: model.executionCount !== null,
        running: this.running.has(id) || pending || expected,
        asked,
        missing,
        record
      },
      this.recorder
    );
  }

  private readonly slices: Slices;
  private readonly records: Records;
  private readonly models = new Map<string, ICellModel>();
  private readonly widgets = new Map<string, MarkWidget>();
  private cells = new Map<string, Cell>();
  private readonly awaited = new WeakSet<Cell>();
  private readonly running = new Set<string>();
  private readonly typed = new Set<string>();
  private typedAt = 0;
  private typedTimer: number | null = null;
  private policyKey = '';
  private _isDisposed = false;
}
