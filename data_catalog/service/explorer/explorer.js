// The page: a map of the tiles, a search, and what it found. All of it follows from one state.

/* global L */
import { distanceColour, labelColour } from "./colours.js";
import { readControls, showControls, withoutFilters } from "./controls.js";
import { element, showQuery, showResults } from "./results.js";
import * as service from "./service.js";
import { filtersOf, readState, writeState } from "./state.js";
import { TileLayer } from "./tile_layer.js";

const MOST_TILES = 5000;
const by = (id) => document.getElementById(id);
const colours = getComputedStyle(document.documentElement);

let state = readState(location.search);
let codes;
let found = null;
let searching = null;
let loading = null;

const map = L.map("map", { zoomSnap: 0.25, zoomDelta: 0.5, wheelPxPerZoomLevel: 90, minZoom: 1, maxZoom: 17, attributionControl: false });
L.control.scale({ imperial: false }).addTo(map);
let layer;

function bounds() {
  const box = map.getBounds();
  const west = Math.max(-180, Math.min(180, box.getWest()));
  const east = Math.max(-180, Math.min(180, box.getEast()));
  return [west, Math.max(-80, box.getSouth()), east, Math.min(84, box.getNorth())];
}

function say(text, isProblem = false) {
  by("status").textContent = text;
  by("status").classList.toggle("problem", isProblem);
}

function attempt(work) {
  return work.catch((error) => {
    if (error.name === "AbortError") return;
    if (!(error instanceof service.Problem)) throw error;
    say(error.message, true);
  });
}

function remember(isNew) {
  const address = writeState(state);
  if (isNew) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

async function loadTiles() {
  loading?.abort();
  loading = new AbortController();
  const box = bounds();
  if (!(box[0] < box[2] && box[1] < box[3])) return;
  const tiles = await service.tilesWithin(box, MOST_TILES, loading.signal);
  const part = tiles.features.length < tiles.total;
  by("map-note").hidden = !part;
  by("map-note").textContent =
    `${tiles.features.length.toLocaleString("en")} of ${tiles.total.toLocaleString("en")} tiles: zoom in for all`;
  if (part) layer.clear();
  layer.add(tiles.features.map(({ id, geometry, properties }) =>
    ({ id, corners: geometry.coordinates[0].slice(0, 4), ...properties })));
  addFound();
}

function addFound() {
  const tiles = found ? [found.tile, ...found.results] : [];
  layer.add(tiles.map((tile) => ({
    id: tile.tile_id,
    corners: tile.corners ?? tile.geometry.coordinates[0].slice(0, 4),
    datetime: tile.datetime, clear_fraction: tile.clear_fraction, label: tile.label,
  })));
}

function recolour() {
  const distances = new Map((found?.results ?? []).map((tile) => [tile.tile_id, tile.distance]));
  const farthest = Math.max(1, ...distances.values());
  layer.colourOf = {
    pictures: null,
    labels: (tile) => labelColour(tile.label),
    distance: (tile) => (tile.id === found?.tile.tile_id
      ? colours.getPropertyValue("--query")
      : distances.has(tile.id) ? distanceColour(distances.get(tile.id) / farthest) : "#8885"),
  }[state.colour];
  outline(null);
}

function outline(pointed) {
  layer.outlines = found
    ? [
      { tileIds: found.results.map((tile) => tile.tile_id), colour: "#fff", width: 2, halo: "#000b" },
      { tileIds: [found.tile.tile_id], colour: colours.getPropertyValue("--query"), width: 4, halo: "#fff" },
      { tileIds: pointed ? [pointed] : [], colour: "#ffd84d", width: 4, halo: "#000" },
    ]
    : [];
  layer.redraw();
}

async function search() {
  searching?.abort();
  if (!state.tile) {
    found = null;
    by("query").hidden = true;
    by("results").replaceChildren();
    say("Click a tile on the map, or type its ID.");
    recolour();
    return;
  }
  searching = new AbortController();
  const { signal } = searching;
  const filters = filtersOf(state, bounds());
  by("results").setAttribute("aria-busy", "true");
  try {
    const [tile, answer] = await Promise.all([
      service.describeTile(state.tile, signal),
      service.similarTiles(state, filters, signal),
    ]);
    found = { ...answer, tile };
    showQuery(by("query"), tile, state, answer.version, actions);
    showResults(by("results"), answer, state, actions);
    const count = answer.results.length;
    say(count
      ? `${count} of ${codes.tiles.toLocaleString("en")} tiles, nearest first, of ${answer.bits} bits`
      : "No tile passes the filters: loosen them.");
    addFound();
    recolour();
  } finally {
    by("results").removeAttribute("aria-busy");
  }
}

const actions = {
  ask(tileId) {
    state = { ...state, tile: tileId, like: [], unlike: [] };
    showControls(state);
    remember(true);
    attempt(search());
  },
  vote(tileId, kind) {
    const without = (list) => list.filter((one) => one !== tileId);
    state = { ...state, like: without(state.like), unlike: without(state.unlike) };
    if (kind) state[kind] = [...state[kind], tileId].slice(-9);
    remember(true);
    attempt(search());
  },
  point: (tileId) => outline(tileId),
  zoom() {
    const { lat, lon } = found.tile;
    const places = found.results.map((tile) => [tile.lat, tile.lon]);
    map.fitBounds(L.latLngBounds([[lat, lon], ...places]), { padding: [60, 60], maxZoom: 13 });
  },
  async copyLink() {
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied: it shows the same search.");
    } catch {
      say(`The link is this page's address: ${location.href}`);
    }
  },
};

function listen() {
  by("search").onsubmit = (event) => {
    event.preventDefault();
    const typed = by("tile-id").value.trim();
    if (typed) actions.ask(typed);
  };
  let later;
  by("search").oninput = (event) => {
    if (event.target.id === "tile-id") return;
    state = readControls(state);
    clearTimeout(later);
    later = setTimeout(() => {
      remember(false);
      attempt(search());
    }, 150);
  };
  by("clear-filters").onclick = () => {
    state = withoutFilters(state);
    showControls(state);
    remember(false);
    attempt(search());
  };
  for (const radio of document.querySelectorAll("input[name=colour]")) {
    radio.onchange = () => {
      state = readControls(state);
      remember(false);
      recolour();
    };
  }
  const take = (latLng) => {
    const tile = layer.at(latLng);
    if (tile) actions.ask(tile.id);
    else say("There is no tile with a code there.");
  };
  map.on("click", ({ latlng }) => take(latlng));
  by("map").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === by("map")) take(map.getCenter());
  });
  map.on("mousemove", ({ latlng }) => {
    const tile = layer.at(latlng);
    const label = Number.isInteger(tile?.label) ? ` · pseudo-label ${tile.label}` : "";
    by("map").title = tile ? `${tile.id} · ${tile.datetime.slice(0, 10)}${label}` : "";
  });
  map.on("moveend", () => {
    const { lat, lng } = map.getCenter();
    state = { ...state, map: [lat.toFixed(5), lng.toFixed(5), map.getZoom()] };
    remember(false);
    attempt(loadTiles());
    if (state.shown && state.tile) attempt(search());
  });
  window.onpopstate = () => {
    state = readState(location.search);
    showControls(state);
    attempt(search());
  };
}

async function start() {
  codes = await service.describe();
  const days = codes.period.map((moment) => moment.slice(0, 10)).join(" to ");
  by("about").textContent = `${codes.tiles.toLocaleString("en")} tiles of ${codes.sensor}, ${days}`;
  by("credit").replaceChildren(
    `${codes.attribution}. Codes of ${codes.bits} bits by ${codes.model_id}. `,
    element("a", { href: "openapi.json", textContent: "Interface" }), ".",
  );
  document.querySelector("input[value=labels]").disabled = !codes.labels;
  const [west, south, east, north] = codes.bbox;
  if (state.map) map.setView(state.map.slice(0, 2), state.map[2]);
  else map.fitBounds([[south, west], [north, east]], { padding: [12, 12] });
  layer = new TileLayer(map);
  layer.version = codes.version;
  showControls(state);
  listen();
  await Promise.all([loadTiles(), search()]);
  document.body.dataset.ready = "";
}

attempt(start());
