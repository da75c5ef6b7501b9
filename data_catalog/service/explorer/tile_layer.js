// The tiles on the map, drawn on one canvas. A tile is a square of its UTM zone and lies a little
// askew in the map's projection: its picture is drawn through the affine map of three corners.

/* global L */
import { Pictures } from "./pictures.js";
import { pictureAddress } from "./service.js";

const MARGIN = 0.2; // of the map's size, drawn beyond its edges
const SMALLEST_PICTURE = 5; // pixels on screen; smaller tiles are squares of one colour
const MOST_PICTURES = 600;
const WORLD = 256; // its width at zoom 0
const SIZES = [32, 64, 128, 256];

export class TileLayer {
  #tiles = new Map();
  #queued = false;

  constructor(map) {
    this.map = map;
    this.version = "";
    this.colourOf = null; // null: pictures
    this.outlines = []; // [{tileIds, colour, width, halo}]
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.pictures = new Pictures(
      (tileId, size) => pictureAddress(tileId, size, this.version),
      () => this.redraw(),
    );
    this.overlay = L.svgOverlay(this.canvas, map.getBounds().pad(MARGIN), { interactive: false });
    this.overlay.addTo(map);
    map.on("moveend resize", () => this.redraw());
  }

  /** Adds tiles, each {id, corners: four of [lon, lat], …}. */
  add(tiles) {
    for (const tile of tiles) {
      const points = tile.corners.map(([lon, lat]) => this.map.project([lat, lon], 0));
      this.#tiles.set(tile.id, { ...tile, points });
    }
    this.redraw();
  }

  clear() {
    this.#tiles.clear();
  }

  get size() {
    return this.#tiles.size;
  }

  get(tileId) {
    return this.#tiles.get(tileId);
  }

  at(latLng) {
    const { x, y } = this.map.project(latLng, 0);
    for (const tile of this.#tiles.values()) {
      if (holds(tile.points, x - turnsTo(tile, x), y)) return tile;
    }
    return null;
  }

  redraw() {
    if (this.#queued) return;
    this.#queued = true;
    requestAnimationFrame(() => {
      this.#queued = false;
      this.#draw();
    });
  }

  #draw() {
    const { map, canvas } = this;
    const bounds = map.getBounds().pad(MARGIN);
    this.overlay.setBounds(bounds);
    const zoom = map.getZoom();
    const corner = map.project(bounds.getNorthWest(), zoom);
    const size = map.project(bounds.getSouthEast(), zoom).subtract(corner);
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = Math.round(size.x * ratio);
    canvas.height = Math.round(size.y * ratio);
    const scale = map.getZoomScale(zoom, 0);
    const middle = map.project(map.getCenter(), 0).x;
    const place = (tile) => {
      const turns = turnsTo(tile, middle);
      return tile.points.map(({ x, y }) =>
        [((x + turns) * scale - corner.x) * ratio, (y * scale - corner.y) * ratio]);
    };

    const context = canvas.getContext("2d");
    const shown = this.#shown(place, canvas);
    this.#drawTiles(context, shown, ratio);
    for (const outline of this.outlines) this.#drawOutline(context, place, outline, ratio);
    canvas.dataset.tiles = shown.length;
  }

  #shown(place, canvas) {
    const shown = [];
    for (const tile of this.#tiles.values()) {
      const corners = place(tile);
      const xs = corners.map(([x]) => x);
      const ys = corners.map(([, y]) => y);
      const inside = Math.max(...xs) > 0 && Math.max(...ys) > 0
        && Math.min(...xs) < canvas.width && Math.min(...ys) < canvas.height;
      if (inside) shown.push({ tile, corners, side: Math.max(...xs) - Math.min(...xs) });
    }
    return shown;
  }

  #drawTiles(context, shown, ratio) {
    const middle = [context.canvas.width / 2, context.canvas.height / 2];
    const far = ({ corners }) => Math.hypot(corners[0][0] - middle[0], corners[0][1] - middle[1]);
    shown.sort((a, b) => far(a) - far(b));
    this.pictures.begin();
    let pictures = 0;
    for (const { tile, corners, side } of shown) {
      const large = side >= SMALLEST_PICTURE * ratio && pictures < MOST_PICTURES;
      const colour = this.colourOf?.(tile);
      let picture = null;
      if (large && !colour) {
        pictures += 1;
        picture = this.pictures.get(tile.id, SIZES.find((one) => one >= side * 0.8) ?? SIZES.at(-1));
      }
      if (picture) drawPicture(context, picture, corners);
      else fill(context, corners, colour ?? "#7f8a80");
    }
    this.pictures.fetchWanted();
    context.canvas.dataset.pictures = pictures;
  }

  #drawOutline(context, place, { tileIds, colour, width, halo }, ratio) {
    context.lineJoin = "round";
    const strokes = halo ? [[halo, width + 2.5], [colour, width]] : [[colour, width]];
    for (const [stroke, wide] of strokes) {
      context.strokeStyle = stroke;
      context.lineWidth = wide * ratio;
      for (const tileId of tileIds) {
        const tile = this.#tiles.get(tileId);
        if (!tile) continue;
        const corners = atLeast(place(tile), 9 * ratio);
        trace(context, corners);
        context.stroke();
      }
    }
  }
}

// How far to move a tile, in whole turns of the globe, to have it nearest to a place on the map.
function turnsTo({ points }, x) {
  return WORLD * Math.round((x - points[0].x) / WORLD);
}

// A found tile is to be seen from afar too.
function atLeast(corners, side) {
  const [x, y] = [0, 1].map((axis) => corners.reduce((sum, at) => sum + at[axis], 0) / 4);
  const own = Math.hypot(corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]);
  const grow = Math.max(1, side / Math.max(own, 1e-6));
  return corners.map(([cx, cy]) => [x + (cx - x) * grow, y + (cy - y) * grow]);
}

function holds(points, x, y) {
  let inside = false;
  for (let i = 0, j = 3; i < 4; j = i, i += 1) {
    const [a, b] = [points[i], points[j]];
    if (a.y > y !== b.y > y && x < ((b.x - a.x) * (y - a.y)) / (b.y - a.y) + a.x) inside = !inside;
  }
  return inside;
}

function trace(context, corners) {
  context.beginPath();
  for (const [x, y] of corners) context.lineTo(x, y);
  context.closePath();
}

function fill(context, corners, colour) {
  trace(context, corners);
  context.fillStyle = colour;
  context.fill();
  context.strokeStyle = colour; // else the background shines through between neighbours
  context.lineWidth = 0.7;
  context.stroke();
}

function drawPicture(context, picture, corners) {
  const [southWest, southEast, northEast, northWest] = corners;
  const side = picture.naturalWidth;
  const across = [(northEast[0] - northWest[0]) / side, (northEast[1] - northWest[1]) / side];
  const down = [(southWest[0] - northWest[0]) / side, (southWest[1] - northWest[1]) / side];
  context.save();
  context.transform(...across, ...down, ...northWest);
  context.drawImage(picture, 0, 0, side + 0.5, side + 0.5); // no seams between neighbours
  context.restore();
}
