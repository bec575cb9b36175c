/**
 * The side panel "Record": what is recorded, consent, the check of a notebook, and this person's events.
 */

import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import * as React from 'react';

import type { Consent } from './consent';
import type { IPolicy } from './contract';
import { EventList } from './eventlist';
import type { Recorder } from './recorder';
import { Verify } from './verify';
import { collected, deliveries, ITranslate, kept, notCollected, stateOf } from './words';

export class RecordPanel extends ReactWidget {
  constructor(
    private readonly recorder: Recorder,
    private readonly consent: Consent,
    private readonly current: () => NotebookPanel | null,
    private readonly trans: ITranslate
  ) {
    super();
    this.id = 'exec-events-panel';
    this.addClass('jp-ExecEvents-panel');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Record'));
    this.title.caption = trans.__('Record: what is recorded of what you run');
  }

  /** Check the notebook in front, as the button does. */
  verify(): void {
    this.verifying.emit();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.shown.emit();
    void this.recorder.refresh();
  }

  protected render(): JSX.Element {
    const { recorder, trans } = this;
    return (
      <UseSignal signal={recorder.changed}>
        {() => {
          const { policy, trouble } = recorder;
          if (trouble === 'absent') {
            return <p>{trans.__('This server has no recorder: nothing is recorded.')}</p>;
          }
          const state = stateOf(recorder, trans);
          return (
            <>
              <section>
                <h2>
                  <span aria-hidden="true">{state.sign}</span> {state.text}
                </h2>
                <p role="status">{state.detail}</p>
                {policy?.problems.map(problem => (
                  <p key={problem}>! {problem}</p>
                ))}
                {policy && this.consentOf(policy)}
              </section>
              <Verify recorder={recorder} current={this.current} asked={this.verifying} trans={trans} />
              {policy && this.words(policy)}
              <EventList recorder={recorder} shown={this.shown} isShown={this.isShown} trans={trans} />
            </>
          );
        }}
      </UseSignal>
    );
  }

  private consentOf(policy: IPolicy): JSX.Element | null {
    const { consent, trans } = this;
    if (policy.mode === 'audit') {
      return <p>{trans.__('This site records everybody who runs code here. It cannot be switched off.')}</p>;
    }
    if (policy.consent?.given) {
      return (
        <>
          <p>{trans.__('You agreed to this (text %1).', policy.consent.version)}</p>
          <button type="button" onClick={() => void consent.withdraw()}>
            {trans.__('Withdraw: record nothing from now on')}
          </button>
        </>
      );
    }
    return (
      <button type="button" onClick={() => void consent.ask()}>
        {trans.__('Read what would be recorded, and decide…')}
      </button>
    );
  }

  private words(policy: IPolicy): JSX.Element {
    const { trans } = this;
    return (
      <section>
        <h2>{trans.__('What is collected')}</h2>
        <List lines={collected(policy, trans)} />
        <h2>{trans.__('What is not')}</h2>
        <List lines={notCollected(policy, trans)} />
        <h2>{trans.__('Where it is')}</h2>
        <List lines={[kept(policy, trans), ...deliveries(policy, trans)]} />
        <p className="jp-ExecEvents-faint">{trans.__('In records you are %1.', policy.subject)}</p>
      </section>
    );
  }

  private readonly isShown = (): boolean => this.isVisible;
  private readonly verifying = new Signal<this, void>(this);
  private readonly shown = new Signal<this, void>(this);
}

function List({ lines }: { lines: string[] }): JSX.Element {
  return (
    <ul>
      {lines.map(line => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );
}
