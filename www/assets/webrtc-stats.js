// Reads an RTCPeerConnection's statistics into one flat object. Rates come from the difference to the previous reading.

export class StatsReader {
  #last = null;

  /** @param {RTCPeerConnection} pc */
  async read(pc) {
    const report = await pc.getStats();
    const all = [...report.values()];
    const inbound = (kind) => all.find((s) => s.type === 'inbound-rtp' && s.kind === kind);
    const video = inbound('video');
    const audio = inbound('audio');
    const pair = selectedPair(report, all);
    const local = pair && report.get(pair.localCandidateId);
    const now = performance.now();
    const bytes = (video?.bytesReceived ?? 0) + (audio?.bytesReceived ?? 0);
    const lost = Math.max(0, video?.packetsLost ?? 0) + Math.max(0, audio?.packetsLost ?? 0);
    const packets = (video?.packetsReceived ?? 0) + (audio?.packetsReceived ?? 0);
    const frames = video?.framesDecoded ?? 0;
    const last = this.#last;
    const seconds = last ? (now - last.now) / 1000 : 0;
    const perSecond = (value, before) => (seconds > 0 ? Math.max(0, value - before) / seconds : null);
    const { jitterBufferDelay: delay = 0, jitterBufferEmittedCount: emitted = 0 } = video ?? audio ?? {};
    const emittedNow = emitted - (last?.emitted ?? 0);
    const bufferMs = emittedNow > 0 ? (1000 * (delay - (last?.delay ?? 0))) / emittedNow : null;
    const rttMs = seconds2ms(pair?.currentRoundTripTime);
    this.#last = { now, bytes, lost, packets, frames, delay, emitted };

    const lostNow = last ? lost - last.lost : 0;
    const packetsNow = last ? packets - last.packets : 0;
    return {
      mode: 'WebRTC',
      transport: transportName(local),
      videoCodec: codecName(report.get(video?.codecId)),
      audioCodec: codecName(report.get(audio?.codecId)),
      width: video?.frameWidth ?? null,
      height: video?.frameHeight ?? null,
      fps: video?.framesPerSecond ?? (last ? perSecond(frames, last.frames) : null),
      /** bit/s */
      bitrate: last ? perSecond(bytes, last.bytes) * 8 : null,
      jitterMs: seconds2ms((video ?? audio)?.jitter),
      packetsReceived: packets,
      packetsLost: lost,
      /** share of the last interval, 0…100 */
      lossPercent: packetsNow + lostNow > 0 ? (100 * Math.max(0, lostNow)) / (packetsNow + lostNow) : 0,
      rttMs,
      /** how long pictures waited in the jitter buffer, over the last interval */
      bufferMs,
      /** from the server to the screen, at most: the round trip and the jitter buffer */
      latencyMs: bufferMs === null ? null : bufferMs + (rttMs ?? 0),
      bytesReceived: bytes,
      framesDecoded: frames,
      keyFramesDecoded: video?.keyFramesDecoded ?? 0,
      framesDropped: video?.framesDropped ?? 0,
      freezeCount: video?.freezeCount ?? 0,
      audioBytesReceived: audio?.bytesReceived ?? 0,
    };
  }
}

function selectedPair(report, all) {
  const transport = all.find((s) => s.type === 'transport' && s.selectedCandidatePairId);
  return (
    report.get(transport?.selectedCandidatePairId) ??
    all.find((s) => s.type === 'candidate-pair' && (s.selected || (s.nominated && s.state === 'succeeded')))
  );
}

function transportName(candidate) {
  if (!candidate?.protocol) return null;
  const relayed = candidate.candidateType === 'relay';
  const protocol = (relayed && candidate.relayProtocol) || candidate.protocol;
  return protocol.toUpperCase() + (relayed ? ' (TURN)' : '');
}

function codecName(codec) {
  return codec?.mimeType?.split('/')[1] ?? null;
}

function seconds2ms(value) {
  return typeof value === 'number' ? value * 1000 : null;
}
