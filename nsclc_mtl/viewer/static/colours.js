// Cividis: even steps of lightness, the same to readers with a colour vision deficiency (Nunez et al. 2018). The maps of `mtl predict` use it too.

const ANCHORS = [
  [0, 34, 78], [0, 49, 112], [42, 63, 109], [67, 78, 108], [87, 93, 109], [106, 108, 113], [125, 124, 120],
  [145, 139, 120], [165, 156, 116], [188, 174, 108], [210, 192, 96], [233, 211, 78], [254, 232, 56],
];

/** Red, green and blue (0 to 255) of a share from 0 (lowest, dark blue) to 1 (highest, yellow). */
export const colour = (share) => {
  const at = Math.min(Math.max(share, 0), 1) * (ANCHORS.length - 1);
  const low = Math.min(Math.floor(at), ANCHORS.length - 2);
  return ANCHORS[low].map((value, k) => Math.round(value + (at - low) * (ANCHORS[low + 1][k] - value)));
};

/** The ramp as a CSS image, lowest on the left. */
export const gradient = () => `linear-gradient(to right, ${ANCHORS.map((rgb) => `rgb(${rgb.join(",")})`).join(", ")})`;
