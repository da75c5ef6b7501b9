// The panel's pictures: the tile asked for, and the tiles that were found.

import { tryAgain } from "./pictures.js";
import { pictureAddress } from "./service.js";

export const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// A picture that does not come is asked for again, a few times.
function picture(address, properties) {
  const image = element("img", { src: address, ...properties });
  let failures = 0;
  image.onerror = () => {
    failures += 1;
    tryAgain(failures, () => { image.src = address; });
  };
  return image;
}

const kilometres = (away) =>
  away === null ? "" : `${away < 10 ? away.toFixed(1) : Math.round(away).toLocaleString("en")} km`;
const bits = (distance) =>
  `${Number.isInteger(distance) ? distance : distance.toFixed(1)} ${distance === 1 ? "bit" : "bits"}`;
const percent = (share) => `${Math.round(share * 100)} % clear`;

export function showQuery(container, tile, state, version, actions) {
  const large = picture(pictureAddress(tile.tile_id, 256, version), {
    alt: `Tile ${tile.tile_id} from above`,
  });
  const chip = (kind) => (tileId) =>
    element("button", {
      type: "button", className: `chip ${kind}`, textContent: tileId.replace(/^UTM\d+-/, ""),
      ariaLabel: `${kind === "like" ? "More" : "Less"} like ${tileId}: take away`,
      onclick: () => actions.vote(tileId, null),
    });
  const label = tile.label === null ? "" : ` · pseudo-label ${tile.label}`;
  container.replaceChildren(
    large,
    element("div", {},
      element("h2", { textContent: tile.tile_id, tabIndex: -1 }),
      element("p", { textContent: `${tile.datetime.slice(0, 10)} · ${percent(tile.clear_fraction)}${label}` }),
      element("p", { textContent: `${tile.lat.toFixed(4)}° ${tile.lon.toFixed(4)}°` }),
      element("div", { className: "actions" },
        element("button", { type: "button", textContent: "Show on map", onclick: actions.zoom }),
        element("button", { type: "button", textContent: "Copy link", onclick: actions.copyLink }),
      ),
      element("div", { className: "chips" },
        ...state.like.map(chip("like")), ...state.unlike.map(chip("unlike")),
      ),
    ),
  );
  container.hidden = false;
}

export function showResults(list, found, state, actions) {
  list.replaceChildren(...found.results.map((tile) => card(tile, state, found.version, actions)));
}

function card(tile, state, version, actions) {
  const small = picture(pictureAddress(tile.tile_id, 192, version), {
    alt: "", loading: "lazy", width: 192, height: 192,
  });
  const facts = element("span", { className: "facts" },
    element("b", { textContent: bits(tile.distance) }), kilometres(tile.away_km));
  const button = element("button", {
    type: "button", className: "card", title: tile.tile_id,
    ariaLabel: `Tile ${tile.tile_id}, ${bits(tile.distance)}, ${kilometres(tile.away_km)} away, `
      + `observed ${tile.datetime.slice(0, 10)}: find its similar tiles`,
    onclick: () => actions.ask(tile.tile_id),
  }, small, facts, element("span", { textContent: tile.datetime.slice(0, 10) }));
  const vote = (kind, sign, text) =>
    element("button", {
      type: "button", textContent: sign, title: `${text} like this`,
      ariaLabel: `${text} like ${tile.tile_id}`,
      ariaPressed: String(state[kind].includes(tile.tile_id)),
      onclick: () => actions.vote(tile.tile_id, state[kind].includes(tile.tile_id) ? null : kind),
    });
  const item = element("li", {}, button,
    element("div", { className: "votes" }, vote("like", "+", "More"), vote("unlike", "−", "Less")));
  item.dataset.tile = tile.tile_id;
  item.onpointerenter = () => actions.point(tile.tile_id);
  item.onpointerleave = () => actions.point(null);
  item.addEventListener("focusin", () => actions.point(tile.tile_id));
  item.addEventListener("focusout", () => actions.point(null));
  return item;
}
