// Requests to the service. Addresses are relative, so that it may live under any path of a proxy.

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status; // 0: no answer
  }
}

async function fetchJson(address, signal) {
  let response;
  try {
    response = await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer. Is it running, and are you online?");
  }
  const body = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    if (response.ok) throw new Problem("The service's answer was cut off: try again.");
    return {};
  });
  if (!response.ok) {
    throw new Problem(body.detail ?? `The service answered ${response.status}.`, response.status);
  }
  return body;
}

export const describe = () => fetchJson("codes");

export const describeTile = (tileId, signal) =>
  fetchJson(`tiles/${encodeURIComponent(tileId)}`, signal);

export async function tileAt(lon, lat, signal) {
  const { query } = await fetchJson(`similar?lon=${lon}&lat=${lat}&k=1`, signal);
  return query.tile_id;
}

export function tilesWithin(bounds, limit, signal) {
  const bbox = bounds.map((degrees) => degrees.toFixed(6)).join(",");
  return fetchJson(`tiles?bbox=${bbox}&limit=${limit}`, signal);
}

export function similarTiles(query, filters, signal) {
  const wanted = new URLSearchParams(filters);
  wanted.set("limit", filters.k);
  if (!query.like.length && !query.unlike.length) {
    return fetchJson(`tiles/${encodeURIComponent(query.tile)}/similar?${wanted}`, signal);
  }
  for (const tileId of [query.tile, ...query.like]) wanted.append("like", tileId);
  for (const tileId of query.unlike) wanted.append("unlike", tileId);
  return fetchJson(`similar?${wanted}`, signal);
}

export const pictureAddress = (tileId, size, version) =>
  `tiles/${encodeURIComponent(tileId)}/picture?size=${size}&version=${version}`;
