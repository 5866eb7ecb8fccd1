// Shows the server's own description of its HTTP API, /api/openapi.json.

const METHODS = ['get', 'put', 'post', 'patch', 'delete'];

/** An element with children; texts stay texts. */
function el(tag, attributes, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children.filter((child) => child !== null && child !== ''));
  return element;
}

/** Text in which `code` stands between backticks. */
const prose = (text = '') => text.split('`').map((part, index) => (index % 2 ? el('code', {}, part) : part));

const refName = (ref) => ref.split('/').at(-1);

/** A schema in a line: `StreamView`, `string[]`, `integer or null`. */
function typeOf(schema) {
  if (!schema || !Object.keys(schema).length) return 'anything';
  if (schema.$ref) return refName(schema.$ref);
  const options = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (options) return [...new Set(options.map(typeOf))].join(' or ');
  const types = [schema.type].flat().filter(Boolean);
  return types.map((type) => {
    if (type === 'array') return `${typeOf(schema.items)}[]`;
    if (type === 'object' && schema.additionalProperties) return `{name: ${typeOf(schema.additionalProperties)}}`;
    return type;
  }).join(' or ') || 'anything';
}

/** A type that leads to its schema further down. */
function typeLink(schema) {
  const type = typeOf(schema);
  return schema?.$ref ? el('a', { href: `#schema-${type}` }, type) : el('code', {}, type);
}

function definitions(title, rows) {
  return rows.length ? [el('h3', {}, title), el('dl', {}, ...rows.flatMap(([term, ...text]) => [el('dt', {}, ...term), el('dd', {}, ...text)]))] : [];
}

const parameterRow = ({ name, in: place, required, description, schema }) =>
  [[el('code', {}, name)], el('span', { className: 'muted' }, `${place}, ${typeOf(schema)}${required ? '' : ', optional'}: `), ...prose(description)];

const bodyRow = ([mediaType, { schema }]) => [[el('code', {}, mediaType)], typeLink(schema)];

function responseRow([status, { description, content = {}, headers = {} }]) {
  const bodies = Object.entries(content).flatMap(([mediaType, { schema }]) => [' ', el('code', {}, mediaType), ' ', typeLink(schema)]);
  const names = Object.keys(headers);
  return [[el('code', {}, status)], ...prose(description), ...bodies, names.length ? ` (${names.join(', ')})` : ''];
}

/** A call to copy; what is in capitals is to be replaced. */
function curl(method, path, operation) {
  const parameters = operation.parameters ?? [];
  const query = parameters.filter((one) => one.in === 'query' && one.required).map((one) => `${one.name}=${one.name.toUpperCase()}`);
  const url = `${location.origin}${path.replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase())}${query.length ? `?${query.join('&')}` : ''}`;
  const [mediaType] = Object.keys(operation.requestBody?.content ?? {});
  return [
    `curl${method === 'get' ? '' : ` -X ${method.toUpperCase()}`} '${url}'`,
    ...parameters.filter((one) => one.in === 'header' && one.required).map((one) => `-H '${one.name}: …'`),
    ...(mediaType ? [`-H 'Content-Type: ${mediaType}'`, '--data-binary @FILE'] : []),
  ].join(' \\\n  ');
}

function operationView(method, path, operation) {
  return el('details', { id: `${method}-${path}` },
    el('summary', {}, el('span', { className: `method ${method}` }, method), el('code', {}, path), el('span', { className: 'muted' }, ...prose(operation.summary))),
    el('div', { className: 'inside' },
      operation.description ? el('p', {}, ...prose(operation.description)) : '',
      ...definitions('Parameters', (operation.parameters ?? []).map(parameterRow)),
      ...definitions('Body', Object.entries(operation.requestBody?.content ?? {}).map(bodyRow)),
      ...definitions('Answers', Object.entries(operation.responses).map(responseRow)),
      el('h3', {}, 'Try it'), el('pre', {}, curl(method, path, operation))));
}

function schemaView(name, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([property, one]) =>
    [[el('code', {}, property)], typeLink(one), required.has(property) ? '' : el('span', { className: 'muted' }, ' may be missing'), one.description ? ': ' : '', ...prose(one.description)]);
  return el('details', { id: `schema-${name}` },
    el('summary', {}, el('code', {}, name), el('span', { className: 'muted' }, schema.description ?? '')),
    el('div', { className: 'inside' }, ...(rows.length ? definitions('Fields', rows) : [el('p', {}, el('code', {}, typeOf(schema)))])));
}

/** Opens what the address leads to: a closed one would not be seen. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

async function show() {
  const main = document.getElementById('docs');
  try {
    const response = await fetch('/api/openapi.json');
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const { info, tags, paths, components } = await response.json();
    const operations = Object.entries(paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => [method, path, item[method]]));
    main.append(el('h1', {}, `${info.title} ${info.version}: HTTP API`), el('p', { className: 'muted' }, ...prose(info.description)));
    for (const tag of tags) {
      const own = operations.filter(([, , operation]) => operation.tags?.includes(tag.name));
      if (own.length) main.append(el('h2', {}, `${tag.name[0].toUpperCase()}${tag.name.slice(1)}`), el('p', { className: 'muted' }, tag.description ?? ''), ...own.map((one) => operationView(...one)));
    }
    main.append(el('h2', {}, 'Schemas'), ...Object.entries(components.schemas).map((one) => schemaView(...one)));
    addEventListener('hashchange', openTarget);
    openTarget();
  } catch (error) {
    main.append(el('p', { className: 'banner' }, `The description can't be shown: ${error.message}. Is /api/openapi.json reachable?`));
  } finally {
    main.removeAttribute('aria-busy');
  }
}

show();
