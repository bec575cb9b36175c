/**
 * "Verify this notebook": asks the server, and shows a verdict on each cell.
 */

import type { NotebookPanel } from '@jupyterlab/notebook';
import type { ISignal } from '@lumino/signaling';
import * as React from 'react';

import type { IVerification } from './contract';
import type { Recorder } from './recorder';
import { ITranslate, verdictWords } from './words';

interface IProps {
  recorder: Recorder;
  current: () => NotebookPanel | null;
  asked: ISignal<unknown, void>;
  trans: ITranslate;
}

type State =
  | { is: 'idle' }
  | { is: 'asking'; name: string }
  | { is: 'failed'; reason: string }
  | { is: 'done'; notebook: NotebookPanel; name: string; answer: IVerification };

export function Verify({ recorder, current, asked, trans }: IProps): JSX.Element {
  const [state, setState] = React.useState<State>({ is: 'idle' });
  const verify = React.useCallback(async () => {
    const notebook = current();
    const model = notebook?.model;
    if (!notebook || !model) {
      setState({ is: 'failed', reason: trans.__('Open a notebook first.') });
      return;
    }
    const path = notebook.context.localPath;
    const name = path.split('/').at(-1) ?? path;
    setState({ is: 'asking', name });
    try {
      const answer = await recorder.api.verify(path, model.toJSON());
      setState({ is: 'done', notebook, name, answer });
    } catch (error) {
      setState({
        is: 'failed',
        reason: trans.__('It could not be verified: %1', String((error as Error).message))
      });
    }
  }, [recorder, current, trans]);
  React.useEffect(() => {
    const slot = () => void verify();
    asked.connect(slot);
    return () => void asked.disconnect(slot);
  }, [asked, verify]);
  return (
    <section>
      <h2>{trans.__('Verify')}</h2>
      <button type="button" disabled={state.is === 'asking'} onClick={() => void verify()}>
        {trans.__('Verify this notebook')}
      </button>
      <div role="status">
        {state.is === 'asking' && <p>{trans.__('Verifying %1…', state.name)}</p>}
        {state.is === 'failed' && <p>✗ {state.reason}</p>}
        {state.is === 'done' && <Summary {...state} trans={trans} />}
      </div>
      {state.is === 'done' && <Verdicts {...state} trans={trans} />}
    </section>
  );
}

interface IDone {
  notebook: NotebookPanel;
  name: string;
  answer: IVerification;
  trans: ITranslate;
}

function Summary({ name, answer, trans }: IDone): JSX.Element {
  return (
    <>
      <p>
        {name}:{' '}
        {answer.summary.map(([result, count]) => `${count} ${verdictWords(result, trans)}`).join(', ')}
      </p>
      <p>
        {answer.chainsOk
          ? `✓ ${trans.__('No record was changed.')}`
          : `✗ ${trans.__('The record itself is damaged:')} ${answer.chainProblems.join(' ')}`}
      </p>
    </>
  );
}

function Verdicts({ notebook, answer, trans }: IDone): JSX.Element {
  const goTo = (index: number) => {
    if (!notebook.isDisposed) {
      notebook.content.activeCellIndex = index;
      void notebook.content.scrollToItem(index);
    }
  };
  return (
    <ol className="jp-ExecEvents-verdicts">
      {answer.cells.map(cell => (
        <li key={cell.index} data-result={cell.result}>
          <button type="button" title={cell.detail} onClick={() => goTo(cell.index)}>
            {trans.__('Cell %1', cell.index + 1)}
          </button>{' '}
          {verdictWords(cell.result, trans)}
          {cell.detail && <div className="jp-ExecEvents-faint">{cell.detail}</div>}
        </li>
      ))}
    </ol>
  );
}
