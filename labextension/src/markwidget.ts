/**
 * One cell's mark: a button with a sign, words and facts; pressed, it shows the whole record and copies it.
 */

import { Clipboard } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import type { ICellRecord } from './contract';
import type { Mark } from './marks';
import { factsOf, ITranslate, remarkOf, signOf, titleOf } from './words';

let count = 0;

export class MarkWidget extends Widget {
  constructor(private readonly trans: ITranslate) {
    super();
    this.addClass('jp-ExecEvents-mark');
    // Keys pressed on the button are its own, not the notebook's commands.
    this.node.setAttribute('data-lm-suppress-shortcuts', 'true');
    this.button.type = 'button';
    this.button.append(this.sign, this.heading, this.remark);
    this.sign.className = 'jp-ExecEvents-sign';
    this.sign.setAttribute('aria-hidden', 'true');
    this.heading.className = 'jp-ExecEvents-title';
    this.remark.className = 'jp-ExecEvents-remark';
    this.button.addEventListener('click', () => this.toggle());
    this.node.append(this.button);
  }

  /** Show another mark; the same one changes nothing. */
  render(mark: Mark): void {
    const key = JSON.stringify(mark);
    if (key === this.key) {
      return;
    }
    this.key = key;
    const remark = remarkOf(mark, this.trans);
    this.node.dataset.kind = mark.kind;
    this.sign.textContent = signOf(mark);
    this.heading.textContent = titleOf(mark, this.trans);
    this.remark.textContent = remark;
    this.button.title = remark;
    this.record = 'record' in mark ? mark.record : null;
    this.button.disabled = this.record === null;
    if (this.record === null) {
      this.button.removeAttribute('aria-expanded');
    } else {
      this.button.setAttribute('aria-expanded', String(this.facts !== null));
    }
    if (this.facts !== null) {
      this.conceal();
      if (this.record !== null) {
        this.reveal();
      }
    }
  }

  /** Show the whole record, or hide it. */
  toggle(): void {
    if (this.facts !== null) {
      this.conceal();
    } else {
      this.reveal();
    }
  }

  focusButton(): void {
    this.button.focus();
  }

  private reveal(): void {
    if (this.record === null) {
      return;
    }
    const facts = factsOf(this.record, this.trans);
    const list = document.createElement('dl');
    for (const [label, value] of facts) {
      const term = document.createElement('dt');
      const description = document.createElement('dd');
      term.textContent = label;
      description.textContent = value;
      list.append(term, description);
    }
    const copy = document.createElement('button');
    const copied = document.createElement('span');
    copy.type = 'button';
    copy.textContent = this.trans.__('Copy');
    copied.setAttribute('role', 'status');
    copy.addEventListener('click', () => {
      Clipboard.copyToSystem(facts.map(([label, value]) => `${label}: ${value}`).join('\n'));
      copied.textContent = this.trans.__('Copied.');
    });
    this.facts = document.createElement('div');
    this.facts.className = 'jp-ExecEvents-facts';
    this.facts.id = `jp-exec-events-facts-${++count}`;
    this.facts.append(list, copy, ' ', copied);
    this.facts.addEventListener('keydown', event => {
      if (event.key === 'Escape') {
        this.conceal();
        this.button.focus();
      }
    });
    this.node.append(this.facts);
    this.button.setAttribute('aria-expanded', 'true');
    this.button.setAttribute('aria-controls', this.facts.id);
  }

  private conceal(): void {
    this.facts?.remove();
    this.facts = null;
    this.button.removeAttribute('aria-controls');
    if (this.record !== null) {
      this.button.setAttribute('aria-expanded', 'false');
    }
  }

  private readonly button = document.createElement('button');
  private readonly sign = document.createElement('span');
  private readonly heading = document.createElement('span');
  private readonly remark = document.createElement('span');
  private facts: HTMLElement | null = null;
  private record: ICellRecord | null = null;
  private key = '';
}
