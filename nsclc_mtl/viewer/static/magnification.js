// Magnification and scale bar, both from um/px: 10x shows 1 um as one pixel of the screen, as objectives are understood on slides.

/** Magnifications of the buttons; keys 1 to 6 choose them. */
export const POWERS = [1, 2.5, 5, 10, 20, 40];

/** Magnification at which a slide pixel of `mpp` um takes `scale` pixels of the screen. */
export const powerOf = (scale, mpp) => (10 * scale) / mpp;

/** Pixels of the screen that a slide pixel takes at a magnification. */
export const scaleOf = (power, mpp) => (power * mpp) / 10;

/** A magnification as it is read out. */
export const written = (power) => `${power >= 9.95 ? Math.round(power) : power >= 0.995 ? Number(power.toFixed(1)) : Number(power.toPrecision(2))}×`;

/** {px, text} of the longest bar of 1, 2 or 5 times a power of ten um that takes at most `most` pixels. */
export const bar = (umPerPx, most = 140) => {
  const ten = 10 ** Math.floor(Math.log10(most * umPerPx));
  const um = [5, 2, 1].map((step) => step * ten).find((length) => length <= most * umPerPx * (1 + 1e-9));
  return { px: um / umPerPx, text: um >= 1000 ? `${um / 1000} mm` : `${um >= 1 ? Math.round(um) : Number(um.toPrecision(1))} µm` };
};
