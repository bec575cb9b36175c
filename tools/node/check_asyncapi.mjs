// Prints what @asyncapi/parser finds wrong with a document, as JSON; references to files are followed.
import { pathToFileURL } from 'node:url';
import { Parser, fromFile } from '@asyncapi/parser';

const path = process.argv[2];
const { document, diagnostics } = await fromFile(new Parser(), path).parse({ source: pathToFileURL(path).href });
const found = diagnostics.map(({ severity, code, message, path: at }) => ({ severity, code, message, at: at.join('/') }));
const messages = document ? document.allMessages().all().map((message) => message.name()) : [];
console.log(JSON.stringify({ parsed: document !== undefined, found, messages }));
