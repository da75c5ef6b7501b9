// What the page shows, kept in its address: a link is enough to see the same.

export const DISTANCES = [0, 2, 5, 10, 20, 50, 100, 200, 500]; // kilometres

const DEFAULTS = {
  tile: "", k: 12, away: 0, from: "", to: "", clear: 0, shown: false, apart: false,
  colour: "pictures", like: [], unlike: [], map: null,
};

const VIEW_LIMITS = [[-80, 84], [-180, 180], [1, 17]]; // latitude, longitude, zoom
const DAY = /^\d{4}-\d\d-\d\d$/;
const TILE = /^[\w-]{1,40}$/;
const whole = (text, low, high, otherwise) => {
  const number = Math.round(Number(text));
  return text !== null && Number.isFinite(number) ? Math.min(high, Math.max(low, number)) : otherwise;
};
const view = (text) => {
  const numbers = (text ?? "").split(",").map(Number);
  if (numbers.length !== 3 || !numbers.every(Number.isFinite)) return null;
  return VIEW_LIMITS.map(([low, high], i) => Math.min(high, Math.max(low, numbers[i])));
};
const day = (text) => (DAY.test(text ?? "") ? text : "");
const tiles = (text) => (text ?? "").toUpperCase().split(" ").filter((part) => TILE.test(part)).slice(0, 9);

export function readState(address) {
  const given = new URLSearchParams(address);
  return {
    tile: tiles(given.get("tile"))[0] ?? "",
    k: whole(given.get("k"), 1, 100, DEFAULTS.k),
    away: whole(given.get("away"), 0, DISTANCES.length - 1, 0),
    from: day(given.get("from")),
    to: day(given.get("to")),
    clear: whole(given.get("clear"), 0, 100, 0),
    shown: given.has("shown"),
    apart: given.has("apart"),
    colour: ["labels", "distance"].find((name) => name === given.get("colour")) ?? "pictures",
    like: tiles(given.get("like")),
    unlike: tiles(given.get("unlike")),
    map: view(given.get("map")),
  };
}

export function writeState(state) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const text = Array.isArray(value) ? value.join(name === "map" ? "," : " ") : String(value);
    if (text !== String(DEFAULTS[name] ?? "") && value !== null) {
      given.set(name, value === true ? "" : text);
    }
  }
  return given.size ? `?${given}` : location.pathname;
}

export function filtersOf(state, shownBounds) {
  const filters = { k: state.k };
  if (state.away) filters.minimum_distance = DISTANCES[state.away] * 1000;
  if (state.from || state.to) filters.period = `${state.from || ".."}/${state.to || ".."}`;
  if (state.clear) filters.minimum_clear = state.clear / 100;
  if (state.apart) filters.outside_block = true;
  if (state.shown) filters.bbox = shownBounds.map((degrees) => degrees.toFixed(6)).join(",");
  return filters;
}

export const filterCount = (state) =>
  [state.away, state.from || state.to, state.clear, state.shown, state.apart].filter(Boolean).length;
