// The API's description is valid, is what the program does, and can be read in a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Ajv2020 from 'ajv/dist/2020.js';
import { Validator } from '@seriousme/openapi-schema-validator';
import { openChromium, poll, screenshot, startStreamgate } from './helpers.mjs';

const METHODS = ['get', 'put', 'post', 'patch', 'delete'];
/** What stands in for the parameters of paths. */
const SAMPLE = { name: 'nothing', session: 'nothing', prefix: 'nothing', file: 'index.m3u8', id: '999999' };
const fill = (path) => path.replace(/\{(\w+)\}/g, (_, name) => {
  assert.ok(name in SAMPLE, `no sample for {${name}}`);
  return SAMPLE[name];
});

const description = async (streamgate) => (await fetch(`${streamgate.url}/api/openapi.json`)).json();

test('the description is valid OpenAPI 3.1 and every operation says what it answers', async (t) => {
  const document = await description(await startStreamgate(t));
  assert.match(document.openapi, /^3\.1\./);
  const { valid, errors } = await new Validator().validate(document);
  assert.ok(valid, JSON.stringify(errors, null, 2));
  const operations = Object.values(document.paths).flatMap((item) => METHODS.map((method) => item[method]).filter(Boolean));
  assert.ok(operations.length >= 20, `${operations.length} operations`);
  const ids = operations.map((operation) => operation.operationId);
  assert.equal(new Set(ids).size, ids.length, `operation ids are unique: ${ids}`);
  for (const operation of operations) {
    assert.ok(operation.summary, operation.operationId);
    assert.ok(operation.tags?.every((tag) => document.tags.some((known) => known.name === tag)), operation.operationId);
  }
});

test('what is described is what is served, and nothing else', async (t) => {
  const streamgate = await startStreamgate(t);
  const { paths } = await description(streamgate);
  for (const [path, item] of Object.entries(paths)) {
    const described = METHODS.filter((method) => item[method]);
    const url = `${streamgate.url}${fill(path)}`;
    for (const method of METHODS) {
      // The read part of an event stream never ends: the head is enough.
      const abort = new AbortController();
      const response = await fetch(url, { method: method.toUpperCase(), headers: { connection: 'close' }, signal: abort.signal });
      const what = `${method} ${path}: ${response.status}`;
      if (described.includes(method)) {
        assert.notEqual(response.status, 405, what);
        assert.ok(response.status < 500 || item[method].responses[response.status], what);
        if (response.status === 404) assert.doesNotMatch(await response.text(), /unknown path/, what);
      } else {
        assert.equal(response.status, 405, what);
        const allowed = (response.headers.get('allow') ?? '').toLowerCase().split(',').map((one) => one.trim());
        assert.deepEqual(allowed.filter((one) => METHODS.includes(one)).sort(), [...described].sort(), what);
      }
      abort.abort();
    }
  }
});

test('answers are as their schemas say', async (t) => {
  const streamgate = await startStreamgate(t);
  const document = await description(streamgate);
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false });
  ajv.addSchema({ $id: 'openapi', components: document.components });
  const schemaOf = (path, method, status) => {
    const { schema } = document.paths[path][method].responses[status].content['application/json'];
    return ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"openapi#/')));
  };
  const check = async (path, method, { query = '', body, status = 200 } = {}) => {
    const options = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    const response = await fetch(`${streamgate.url}${path.replace('{name}', 'demo')}${query}`, { method: method.toUpperCase(), ...options });
    const answer = await response.json();
    assert.equal(response.status, status, `${method} ${path}: ${JSON.stringify(answer)}`);
    const valid = schemaOf(path, method, status);
    assert.ok(valid(answer), `${method} ${path}: ${JSON.stringify(valid.errors)}: ${JSON.stringify(answer)}`);
    return answer;
  };
  // The demo camera is dialled, so that a stream is shown with all that it can have.
  await check('/api/streams', 'get', { query: '?src=demo&video&audio' });
  await poll('the demo is live', 10_000, async () => (await check('/api/streams/{name}', 'get')).bitrate);
  await check('/api/streams', 'get');
  await check('/api', 'get');
  await check('/api/schemes', 'get');
  await check('/api/ice', 'get');
  await check('/healthz', 'get');
  await check('/readyz', 'get');
  await check('/api/streams', 'get', { query: '?src=nothing', status: 404 });
  await check('/api/webrtc', 'post', { query: '?src=nothing', body: {}, status: 400 });
  await check('/api/config', 'patch', { body: { log: { level: 'debug' } } });
  await check('/api/config', 'patch', { body: { log: { level: 'loud' } }, status: 422 });
  await check('/api/streams/{name}', 'patch', { body: { linger: '11s' } });
  const edit = ajv.compile({ $ref: 'openapi#/components/schemas/Edit' });
  for (const [body, taken] of [[{ sources: 'demo:' }, true], [{ sources: ['demo:'] }, true], [{ on_demand: null }, false], [{ linger: null }, false], [{ sources: 1 }, false]]) {
    const { status } = await fetch(`${streamgate.url}/api/streams/demo`, { method: 'PATCH', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    assert.deepEqual([status === 200, edit(body)], [taken, taken], JSON.stringify(body));
  }
  await check('/api/streams', 'delete', { query: '?src=demo' });
});

test('the page shows every operation, from this server alone', async (t) => {
  const streamgate = await startStreamgate(t);
  const { paths } = await description(streamgate);
  const browser = await openChromium(t);
  const page = await browser.newPage();
  const faults = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && faults.push(message.text()));
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('request', (request) => request.url().startsWith(`${streamgate.url}/`) || faults.push(`asks ${request.url()}`));
  await page.goto(`${streamgate.url}/`);
  await page.getByRole('link', { name: 'HTTP API' }).click();
  const shown = page.locator('#docs .method');
  const expected = Object.values(paths).flatMap((item) => METHODS.filter((method) => item[method])).length;
  await poll('all are shown', 10_000, async () => (await shown.count()) === expected);
  await page.locator('summary', { hasText: 'Creates or replaces a stream' }).first().click();
  await page.locator('details[open]').getByText(/curl -X PUT/).waitFor({ timeout: 10_000 });
  await screenshot(page, 'api-docs');
  assert.deepEqual(faults, []);
});
