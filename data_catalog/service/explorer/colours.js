// Colours of squares: of pseudo-labels, and of distances in bits.

const GOLDEN_ANGLE = 137.508;

export function labelColour(label) {
  if (label === null || label === undefined) return "#8888";
  const lightness = [58, 44, 70][label % 3];
  return `hsl(${(label * GOLDEN_ANGLE) % 360} 62% ${lightness}%)`;
}

// Viridis, from near to far: told apart by lightness too.
const NEAR_TO_FAR = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]];

export const NEAR_TO_FAR_GRADIENT =
  `linear-gradient(to right, ${NEAR_TO_FAR.map((colour) => `rgb(${colour.join(" ")})`).join(", ")})`;

export function distanceColour(share) {
  const at = Math.min(1, Math.max(0, share)) * (NEAR_TO_FAR.length - 1);
  const first = Math.min(Math.floor(at), NEAR_TO_FAR.length - 2);
  const mixed = NEAR_TO_FAR[first].map((low, i) =>
    Math.round(low + (NEAR_TO_FAR[first + 1][i] - low) * (at - first)));
  return `rgb(${mixed.join(" ")})`;
}
