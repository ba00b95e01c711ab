// Reads bodies (base64, one a line) as a server on Node would, and prints what it makes of each as a line of JSON.
import { createInterface } from 'node:readline';

for await (const line of createInterface({ input: process.stdin })) {
  let read = { ok: false };
  try {
    // As frameworks do it: bytes to text, a byte order mark dropped, wrong UTF-8 replaced.
    const text = new TextDecoder('utf-8').decode(Buffer.from(line, 'base64'));
    const message = JSON.parse(text);
    const params = message.params ?? {};
    read = { ok: true, method: message.method, name: params.name, uri: params.uri, arguments: params.arguments };
  } catch {
    // Not read is an answer, too.
  }
  console.log(JSON.stringify(read));
}
