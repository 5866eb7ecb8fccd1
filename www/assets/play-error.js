// Why a stream does not play, in words for the person who watches, and how soon to try again.

/** How to go on after a failure: soon with growing pauses, slowly, or not at all. */
export const Retry = Object.freeze({ BACKOFF: 'backoff', SLOW: 'slow', NEVER: 'never' });

export class PlayError extends Error {
  /**
   * @param {string} kind short machine word: unknown, codecs, source, limit, denied, request, server, network,
   *   connection, picture, unsupported, ended
   * @param {string} title one short sentence without a full stop
   * @param {{detail?: string, hint?: string, status?: number, retry?: string, retryAfterMs?: number, fallback?: boolean}} [more]
   *   fallback: it is this way of getting the media that failed, so another one may work
   */
  constructor(kind, title, { detail = '', hint = '', status = 0, retry = Retry.BACKOFF, retryAfterMs = 0, fallback = false } = {}) {
    super(sentence(title, detail, hint));
    this.name = 'PlayError';
    Object.assign(this, { kind, title, detail, hint, status, retry, retryAfterMs, fallback });
  }

  /** The error for a request that got no answer. `error` is what fetch() threw; a deadline aborts it. */
  static unreachable(error) {
    return new PlayError('network', 'Can’t reach the server', {
      detail: ['AbortError', 'TimeoutError'].includes(error?.name) ? 'no answer in time' : '',
      hint: navigator.onLine === false ? 'This device is offline.' : '',
    });
  }

  /** The error for an HTTP answer that is not a success. Reads the server's JSON when there is one. `way`: 'WebRTC', 'HLS'. */
  static async fromResponse(response, stream, way) {
    const body = await response.json().catch(() => null);
    const error = text(body?.error);
    const detail = text(body?.detail);
    const hint = text(body?.hint);
    const both = [error, detail].filter(Boolean).join(': ');
    const status = response.status;
    const retryAfterMs = Math.min(60, Number(response.headers.get('Retry-After')) || 0) * 1000;
    // A camera that does not answer, or a stream that is not there, is so by every way.
    const fallback = ![401, 403, 404, 429, 502, 503, 504].includes(status);
    const of = (kind, title, retry, said = both) =>
      new PlayError(kind, title, { detail: said, hint, status, retry, retryAfterMs, fallback });
    switch (status) {
      case 401:
      case 403: return of('denied', 'You are not allowed to watch this stream', Retry.SLOW);
      case 404: return of('unknown', `There is no stream called “${stream}”`, Retry.SLOW);
      case 422: return of('codecs', `This browser can’t play this stream over ${way}`, Retry.SLOW, detail || error);
      case 429:
      case 503: return of('limit', 'The server is at its limit', Retry.BACKOFF);
      case 502:
      case 504: return of('source', 'Camera is not answering', Retry.BACKOFF, detail || error);
      default:
        return status >= 500
          ? of('server', `The server failed (${status})`, Retry.BACKOFF)
          : of('request', `The server refused the request (${status})`, Retry.SLOW);
    }
  }
}

function text(value) {
  return typeof value === 'string' ? value.slice(0, 1000) : '';
}

function sentence(title, detail, hint) {
  const head = detail ? `${title}: ${detail}` : title;
  return hint ? `${head.replace(/[.\s]+$/, '')}. ${hint}` : head;
}
