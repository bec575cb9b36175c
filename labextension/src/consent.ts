/**
 * Asking for consent: the dialog with the site's text, and what follows from the answer.
 */

import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import { ApiError } from './api';
import type { IConsent } from './contract';
import type { Recorder } from './recorder';
import type { ITranslate } from './words';

const DECLINED = 'exec-events:declined:';

export class Consent {
  constructor(
    private readonly recorder: Recorder,
    private readonly trans: ITranslate,
    baseUrl: string
  ) {
    // Two people's servers on one hub have one origin.
    this.key = DECLINED + baseUrl;
  }

  /** Ask, unless there is nothing to ask or this text was declined before. */
  async askOnce(): Promise<void> {
    const consent = this.recorder.policy?.consent;
    if (consent && !consent.given && this.asked !== consent.version) {
      this.asked = consent.version;
      if (remembered(this.key) !== consent.version) {
        await this.ask();
      }
    }
  }

  /** Show the text, and do as the person says; who closes the dialog has said no. */
  async ask(): Promise<void> {
    const consent = this.recorder.policy?.consent;
    if (!consent || consent.given || this.isOpen) {
      return;
    }
    this.isOpen = true;
    try {
      const yes = Dialog.okButton({ label: this.trans.__('Yes, record what I run'), accept: true });
      const no = Dialog.cancelButton({ label: this.trans.__('No, record nothing') });
      const result = await showDialog({
        title: this.trans.__('May what you run be recorded?'),
        body: bodyOf(consent, this.trans),
        buttons: [no, yes],
        // Whoever presses Enter without reading has not agreed.
        defaultButton: 0
      });
      if (result.button.accept) {
        await this.give(consent.version);
      } else {
        remember(this.key, consent.version);
      }
    } finally {
      this.isOpen = false;
    }
  }

  async withdraw(): Promise<void> {
    await this.tell(() => this.recorder.api.withdrawConsent());
  }

  private async give(version: string): Promise<void> {
    await this.tell(() => this.recorder.api.giveConsent(version));
  }

  private async tell(call: () => Promise<void>): Promise<void> {
    try {
      await call();
    } catch (error) {
      const reason = error instanceof ApiError ? error.message : String(error);
      await showErrorMessage(
        this.trans.__('Your answer did not reach the recorder'),
        this.trans.__('Nothing has changed. Try again in the panel "Record". (%1)', reason)
      );
    }
    await this.recorder.refresh();
  }

  private readonly key: string;
  private asked: string | null = null;
  private isOpen = false;
}

/** Of this browser's memory; without one people are asked by each page. */
function remembered(key: string): string | null {
  try {
    return window.localStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key: string, value: string): void {
  try {
    window.localStorage.setItem(key, value);
  } catch {
    // As above.
  }
}

function bodyOf(consent: IConsent, trans: ITranslate): Widget {
  const body = new Widget();
  body.addClass('jp-ExecEvents-consent');
  for (const paragraph of consent.text.split(/\n\s*\n/)) {
    const element = document.createElement('p');
    element.textContent = paragraph;
    body.node.append(element);
  }
  const more = document.createElement('p');
  more.textContent = trans.__(
    'Nothing is recorded unless you say yes. You can change your mind at any time, in the panel "Record".'
  );
  const version = document.createElement('p');
  version.className = 'jp-ExecEvents-faint';
  version.textContent = trans.__('Version of this text: %1', consent.version);
  body.node.append(more, version);
  return body;
}
