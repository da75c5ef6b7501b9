// The page: a map of the tiles, a search, and what it found. All of it follows from one state.

/* global L */
import { distanceColour, labelColour, NEAR_TO_FAR_GRADIENT } from "./colours.js";
import { readControls, showControls, withoutFilters } from "./controls.js";
import { element, showQuery, showResults } from "./results.js";
import * as service from "./service.js";
import { filtersOf, readState, writeState } from "./state.js";
import { TileLayer } from "./tile_layer.js";

const MOST_TILES = 5000; // asked for at once
const MOST_KEPT = 20000; // drawing slows down beyond
const PLACE = /^(-?[\d.]+)\s*[,\s]\s*(-?[\d.]+)$/; // lon, lat
const by = (id) => document.getElementById(id);
const colours = getComputedStyle(document.documentElement);

let state = readState(location.search);
let codes;
let found = null;
let searching = null;
let loading = null;
let unreachable = false;

const map = L.map("map", { zoomSnap: 0.25, zoomDelta: 0.5, wheelPxPerZoomLevel: 90, minZoom: 1, maxZoom: 17, attributionControl: false });
L.control.scale({ imperial: false }).addTo(map);
let layer;

function bounds() {
  const box = map.getBounds();
  const [south, north] = [Math.max(-80, box.getSouth()), Math.min(84, box.getNorth())];
  if (box.getEast() - box.getWest() >= 360) return [-180, south, 180, north];
  return [box.getSouthWest().wrap().lng, south, box.getNorthEast().wrap().lng, north];
}

function showAll() {
  const [west, south, east, north] = codes.bbox;
  const beyond = east < west ? 360 : 0;
  map.fitBounds([[south, west], [north, east + beyond]], { padding: [12, 48], animate: false });
}

function say(text, isProblem = false) {
  by("status").textContent = text;
  by("status").classList.toggle("problem", isProblem);
}

function attempt(work) {
  return work.catch((error) => {
    if (error.name === "AbortError") return;
    if (!(error instanceof service.Problem)) throw error;
    unreachable = !error.status;
    by("results").removeAttribute("aria-busy");
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
  if (box[1] >= box[3]) return;
  const tiles = await service.tilesWithin(box, MOST_TILES, loading.signal);
  if (unreachable) {
    unreachable = false;
    attempt(search());
  }
  const part = tiles.features.length < tiles.total;
  by("map-note").hidden = !part && tiles.total > 0;
  by("map-note").textContent = part
    ? `${tiles.features.length.toLocaleString("en")} of ${tiles.total.toLocaleString("en")} tiles: zoom in for all`
    : "No tiles here";
  if (part || layer.size > MOST_KEPT) layer.clear();
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

// From 0 to half the bits, where codes have nothing in common: the same in every search.
const colourOfDistance = (distance) => distanceColour(distance / (codes.bits / 2));

function recolour() {
  const distances = new Map((found?.results ?? []).map((tile) => [tile.tile_id, tile.distance]));
  by("distance-legend").hidden = state.colour !== "distance";
  layer.colourOf = {
    pictures: null,
    labels: (tile) => labelColour(tile.label),
    distance: (tile) => (tile.id === found?.tile.tile_id
      ? colours.getPropertyValue("--query")
      : distances.has(tile.id) ? colourOfDistance(distances.get(tile.id)) : "#8885"),
  }[state.colour];
  outline(null);
}

function outline(pointed) {
  layer.outlines = found
    ? [
      ...found.results.map((tile) => ({
        tileIds: [tile.tile_id], width: 2, halo: "#000b",
        colour: state.colour === "distance" ? colourOfDistance(tile.distance) : "#fff",
      })),
      { tileIds: state.unlike, colour: "#7d8489", width: 3, halo: "#fff" },
      { tileIds: state.like, colour: colours.getPropertyValue("--query"), width: 2.5, halo: "#fff" },
      { tileIds: [found.tile.tile_id], colour: colours.getPropertyValue("--query"), width: 4, halo: "#fff" },
      { tileIds: pointed ? [pointed] : [], colour: "#ffd84d", width: 4, halo: "#000" },
    ]
    : [];
  layer.redraw();
}

function showNothing(text, isProblem) {
  found = null;
  by("query").hidden = true;
  by("results").replaceChildren();
  say(text, isProblem);
  recolour();
}

function show(tile, answer) {
  const hadFocus = [by("query"), by("results")].some((one) => one.contains(document.activeElement));
  found = { ...answer, tile };
  showQuery(by("query"), tile, state, answer.version, actions);
  showResults(by("results"), answer, state, actions);
  // What had it is replaced: who goes by keyboard stays here.
  if (hadFocus) by("query").querySelector("h2").focus({ preventScroll: true });
  const count = answer.results.length;
  say(count
    ? `${count} of ${codes.tiles.toLocaleString("en")} tiles, nearest first: bits that differ, of ${answer.bits}`
    : "No tile passes the filters: loosen them.");
  addFound();
  recolour();
}

async function search() {
  searching?.abort();
  if (!state.tile) {
    showNothing("Click a tile on the map, or type its ID or a place.", false);
    return;
  }
  searching = new AbortController();
  const { signal } = searching;
  by("results").setAttribute("aria-busy", "true");
  try {
    const tile = await service.describeTile(state.tile, signal);
    const answer = await service.similarTiles(state, filtersOf(state, bounds()), signal);
    if (answer.version !== codes.version) {
      await describeCodes();
      if (signal.aborted) return;
      layer.clear();
      layer.pictures.clear();
      attempt(loadTiles());
    }
    show(tile, answer);
  } catch (error) {
    if (!(error instanceof service.Problem)) throw error;
    unreachable = !error.status;
    showNothing(error.message, true);
  } finally {
    if (!signal.aborted) by("results").removeAttribute("aria-busy");
  }
}

// The map need not hold all tiles that it shows.
async function takeFromService({ lat, lng }) {
  searching?.abort();
  searching = new AbortController();
  try {
    actions.ask(await service.tileAt(lng, lat, searching.signal));
  } catch (error) {
    if (error.status !== 404 && error.status !== 422) throw error;
    by("results").removeAttribute("aria-busy");
    say("There is no tile with a code there.");
  }
}

// What was typed: a tile ID in any case, or a place.
async function askTyped(typed) {
  const place = PLACE.exec(typed);
  searching?.abort();
  searching = new AbortController();
  const { signal } = searching;
  try {
    const tileId = place
      ? await service.tileAt(place[1], place[2], signal)
      : (await service.describeTile(typed.toUpperCase(), signal)).tile_id;
    actions.ask(tileId);
  } catch (error) {
    if (!error.status || error.status >= 500) throw error;
    state = { ...state, tile: "", like: [], unlike: [] };
    remember(true);
    showNothing(error.message, true);
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
    const turns = (other) => 360 * Math.round((lon - other) / 360);
    const places = found.results.map((tile) => [tile.lat, tile.lon + turns(tile.lon)]);
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
    if (typed) attempt(askTyped(typed));
  };
  by("all-tiles").onclick = showAll;
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
    else attempt(takeFromService(latLng.wrap()));
  };
  map.on("click", ({ latlng }) => take(latlng));
  by("map").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === by("map")) take(map.getCenter());
  });
  // Leaflet focuses the map on a click, which browsers may show as if a key had done so.
  const { dataset } = document.body;
  document.addEventListener("keydown", () => { dataset.keys = ""; }, true);
  document.addEventListener("pointerdown", () => { delete dataset.keys; }, true);
  map.on("mousemove", ({ latlng }) => {
    const tile = layer.at(latlng);
    const label = Number.isInteger(tile?.label) ? ` · pseudo-label ${tile.label}` : "";
    by("map").title = tile ? `${tile.id} · ${tile.datetime.slice(0, 10)}${label}` : "";
  });
  map.on("moveend", () => {
    const { lat, lng } = map.getCenter().wrap();
    state = { ...state, map: [lat.toFixed(5), lng.toFixed(5), map.getZoom()] };
    remember(false);
    attempt(loadTiles());
    if (state.shown && state.tile) attempt(search());
  });
  window.onpopstate = () => {
    state = readState(location.search);
    showControls(state);
    if (state.map) map.setView(state.map.slice(0, 2), state.map[2], { animate: false });
    attempt(search());
  };
}

async function describeCodes() {
  codes = await service.describe();
  const [first, last] = codes.period.map((moment) =>
    element("span", { className: "day", textContent: moment.slice(0, 10) }));
  by("about").replaceChildren(
    `${codes.tiles.toLocaleString("en")} tiles of ${codes.sensor_title}, `, first, " to ", last,
  );
  by("credit").replaceChildren(
    `${codes.attribution}. Codes of ${codes.bits} bits by ${codes.model_id}. `,
    element("a", { href: "openapi.json", textContent: "Interface" }), ".",
  );
  document.querySelector("input[value=labels]").disabled = !codes.labels;
  by("farthest").textContent = `${codes.bits / 2} bits and more`;
  if (layer) layer.version = codes.version;
}

async function start() {
  await describeCodes();
  by("distance-legend").querySelector(".scale").style.background = NEAR_TO_FAR_GRADIENT;
  if (state.map) map.setView(state.map.slice(0, 2), state.map[2]);
  else showAll();
  layer = new TileLayer(map);
  layer.version = codes.version;
  showControls(state);
  listen();
  await Promise.all([loadTiles(), search()]);
}

attempt(start()).finally(() => {
  document.body.dataset.ready = "";
});
