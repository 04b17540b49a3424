// the texts whose contrast is below 4.5 to 1, with the theme
const lum = (c) => { const v = c.match(/[\d.]+/g).slice(0, 3).map((x) => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; });
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const ground = (e) => { for (; e; e = e.parentElement) { const b = getComputedStyle(e).backgroundColor; if (!/, 0\)$/.test(b)) return b; } return 'rgb(255,255,255)'; };
const out = [];
for (const e of document.querySelectorAll('h1,h2,h3,p,dt,dd,th,td,a,button:not(:disabled),label,figcaption span,.who span,.tag,code,pre,kbd,svg text')) {
  if (!e.textContent.trim() || !e.getClientRects().length || e.closest('.hidden')) continue;
  const s = getComputedStyle(e), a = lum(e.namespaceURI.endsWith('svg') ? s.fill : s.color), b = lum(ground(e));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) out.push([e.className.baseVal ?? e.className, e.tagName, e.textContent.slice(0, 30), ratio]);
}
return [document.documentElement.dataset.theme, out];
