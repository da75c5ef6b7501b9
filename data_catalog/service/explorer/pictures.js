// Pictures of tiles for the map: the newest wanted first, few requests at once, not too many kept.

const KEPT = 800;
const AT_ONCE = 6;

export class Pictures {
  #known = new Map();
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
    image.onload = () => done(image);
    image.onerror = () => done(null);
    image.src = this.addressOf(tileId, size);
  }
}
