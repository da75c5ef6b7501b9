// The form: number of results and filters, to and from the state.

import { DISTANCES, filterCount } from "./state.js";

const by = (id) => document.getElementById(id);

export function showControls(state) {
  by("tile-id").value = state.tile;
  by("k").value = state.k;
  by("minimum-distance").value = state.away;
  by("first-day").value = state.from;
  by("last-day").value = state.to;
  by("minimum-clear").value = state.clear;
  by("shown-map").checked = state.shown;
  by("outside-block").checked = state.apart;
  document.querySelector(`input[name=colour][value=${state.colour}]`).checked = true;
  by("filters").open ||= filterCount(state) > 0;
  showValues(state);
}

function showValues(state) {
  by("k-value").value = state.k;
  const away = state.away ? `${DISTANCES[state.away]} km` : "anywhere";
  by("minimum-distance-value").value = away;
  by("minimum-distance").setAttribute("aria-valuetext", away);
  by("minimum-clear-value").value = `${state.clear} %`;
  const count = filterCount(state);
  by("filters-set").textContent = count ? `(${count} set)` : "";
}

export function readControls(state) {
  const changed = {
    ...state,
    k: Number(by("k").value),
    away: Number(by("minimum-distance").value),
    from: by("first-day").value,
    to: by("last-day").value,
    clear: Number(by("minimum-clear").value),
    shown: by("shown-map").checked,
    apart: by("outside-block").checked,
    colour: document.querySelector("input[name=colour]:checked").value,
  };
  showValues(changed);
  return changed;
}

export const withoutFilters = (state) =>
  ({ ...state, away: 0, from: "", to: "", clear: 0, shown: false, apart: false });
