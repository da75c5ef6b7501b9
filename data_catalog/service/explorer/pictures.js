// Pictures of tiles for the map: the newest wanted first, few requests at once, not too many kept.

const KEPT = 800;
const AT_ONCE = 6;
const TRIES = 5;

/** Does something again after a failure, later each time; not for ever. */
export function tryAgain(failures, again) {
  if (failures < TRIES) setTimeout(again, 1000 * 2 ** failures);
}

export class Pictures {
  #known = new Map();
  #failures = new Map();
  #wanted = [];
  #loading = 0;

  constructor(addressOf, arrived) {
    this.addressOf = addressOf;
    this.arrived = arrived;
  }

  /** The picture if it is there; else null, and it is fetched. */
  get(tileId, size) {
    const key = `${tileId} ${size}`;
    const known = this.#known.get(key);
    if (known === undefined) {
      this.#wanted.push([key, tileId, size]);
      return this.#other(tileId, size);
    }
    this.#known.delete(key);
    this.#known.set(key, known);
    return known ?? this.#other(tileId, size);
  }

  /** Forgets what was wanted and has not been begun: the map shows something else now. */
  begin() {
    this.#wanted = [];
  }

  fetchWanted() {
    while (this.#loading < AT_ONCE && this.#wanted.length) {
      this.#fetch(...this.#wanted.shift());
    }
  }

  /** Forgets all pictures: other ones are published. */
  clear() {
    this.#known.clear();
    this.#failures.clear();
  }

  #other(tileId, size) {
    for (const side of [size / 2, size * 2, size / 4]) {
      const picture = this.#known.get(`${tileId} ${side}`);
      if (picture) return picture;
    }
    return null;
  }

  #fetch(key, tileId, size) {
    if (this.#known.has(key)) return;
    this.#loading += 1;
    this.#known.set(key, null);
    const image = new Image();
    const done = (picture) => {
      this.#loading -= 1;
      this.#known.set(key, picture);
      while (this.#known.size > KEPT) this.#known.delete(this.#known.keys().next().value);
      if (picture) this.arrived();
      this.fetchWanted();
    };
    image.onload = () => {
      this.#failures.delete(key);
      done(image);
    };
    image.onerror = () => {
      done(null);
      this.#tryAgain(key);
    };
    image.src = this.addressOf(tileId, size);
  }

  #tryAgain(key) {
    const failures = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, failures);
    tryAgain(failures, () => {
      if (this.#known.get(key) !== null) return;
      this.#known.delete(key);
      this.arrived();
    });
  }
}
