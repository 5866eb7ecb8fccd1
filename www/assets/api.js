// The server's REST calls that the pages need.

const DEADLINE_MS = 8_000;
/** Adding a stream may make the server look at the camera first. */
const CHANGE_DEADLINE_MS = 30_000;

/** A refused or failed call, in the server's words. `status` is 0 when the server was not reached. */
export class ApiError extends Error {
  constructor(status, message, detail = '', hint = '') {
    super(message);
    Object.assign(this, { status, detail, hint });
  }
}

async function call(path, { deadline = DEADLINE_MS, ...options } = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(deadline) });
  } catch (error) {
    throw new ApiError(0, error?.name === 'TimeoutError' ? 'The server does not answer' : 'The server is not reachable');
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const text = (value) => (typeof value === 'string' ? value : '');
  throw new ApiError(response.status, text(body?.error) || `The server answered ${response.status}`, text(body?.detail), text(body?.hint));
}

async function json(path) {
  const response = await call(path);
  try {
    return await response.json();
  } catch {
    throw new ApiError(response.status, 'The server’s answer is not JSON');
  }
}

/** @returns {Promise<Object<string, object>>} name → what the server says about it */
export async function listStreams() {
  const streams = await json('/api/streams');
  return streams && typeof streams === 'object' ? streams : {};
}

export function serverInfo() {
  return json('/api');
}

export async function putStream(name, sources) {
  const query = new URLSearchParams({ name });
  for (const source of sources) query.append('src', source);
  await call(`/api/streams?${query}`, { method: 'PUT', deadline: CHANGE_DEADLINE_MS });
}

export async function endViewer(name, id) {
  await call(`/api/streams/${encodeURIComponent(name)}/consumers/${id}`, { method: 'DELETE' });
}

export async function deleteStream(name) {
  await call(`/api/streams?${new URLSearchParams({ src: name })}`, { method: 'DELETE', deadline: CHANGE_DEADLINE_MS });
}
