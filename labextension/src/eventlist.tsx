/**
 * This person's latest events, renewed while they can be seen.
 */

import { Debouncer } from '@lumino/polling';
import type { ISignal } from '@lumino/signaling';
import * as React from 'react';

import type { ISealedEvent } from './contract';
import type { Recorder } from './recorder';
import { clockTime, eventLine, ITranslate, shortHash } from './words';

const SHOWN = 50;
const RENEW_MS = 1_000;

interface IProps {
  recorder: Recorder;
  shown: ISignal<unknown, void>;
  isShown: () => boolean;
  trans: ITranslate;
}

export function EventList({ recorder, shown, isShown, trans }: IProps): JSX.Element {
  const [events, setEvents] = React.useState<ISealedEvent[]>([]);
  React.useEffect(() => {
    let isAsking = false;
    let isGone = false;
    const ask = async () => {
      if (isAsking || !isShown() || recorder.trouble !== null) {
        return;
      }
      isAsking = true;
      try {
        const answer = await recorder.api.events(SHOWN);
        if (!isGone) {
          setEvents(answer);
        }
      } catch {
        // What was shown stays; the next change asks again.
      }
      isAsking = false;
    };
    const soon = new Debouncer(ask, RENEW_MS);
    const slot = () => void soon.invoke().catch(() => undefined);
    recorder.recorded.connect(slot);
    recorder.changed.connect(slot);
    shown.connect(slot);
    slot();
    return () => {
      isGone = true;
      recorder.recorded.disconnect(slot);
      recorder.changed.disconnect(slot);
      shown.disconnect(slot);
      soon.dispose();
    };
  }, [recorder, shown, isShown]);
  return (
    <section>
      <h2>{trans.__('Your latest events')}</h2>
      {events.length === 0 && <p>{trans.__('None yet.')}</p>}
      <ol className="jp-ExecEvents-events">
        {events.map(sealed => (
          <Item key={`${sealed.chain}/${sealed.seq}`} sealed={sealed} trans={trans} />
        ))}
      </ol>
    </section>
  );
}

function Item({ sealed, trans }: { sealed: ISealedEvent; trans: ITranslate }): JSX.Element {
  const { event, seq, hash } = sealed;
  const { time } = event;
  return (
    <li>
      <details>
        <summary>
          <time>{typeof time === 'string' ? clockTime(time) : ''}</time> {eventLine(sealed, trans)}{' '}
          <code>{trans.__('no. %1 · %2', seq, shortHash(hash))}</code>
        </summary>
        <pre tabIndex={0}>{JSON.stringify(sealed, null, 2)}</pre>
      </details>
    </li>
  );
}
