// The network of DDPM: a U-Net that sees the noisy image and the time, and names the noise.   Beside: ddpm_tutorial/unet.py
//
// [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239, appendix B
// [2] Vaswani et al. Attention Is All You Need. arXiv:1706.03762
//
// The same blocks in the same order, with the weights that the Python trained; only how numbers lie in memory is ours.  An activation is {data, B, H, W,
// C}, with the
// channels of a pixel side by side: then a convolution is "collect the 9 neighbours of every pixel in a row" (`columns`) and one product of matrices
// (`linear`), and
// nearly all the time is spent in `linear`, in one loop.  It keeps 4 × 4 sums in registers, so that 8 numbers read feed 16 multiplications.
"use strict";

room(lab => {
  // [2] section 3.5, as in [1]: sines, then cosines, of t at frequencies 10000^(-i/(half-1)).
  function timestep_embedding(t, dim) {
    const half = dim / 2, out = new Float32Array(dim);
    for (let i = 0; i < half; i++) {
      const angle = t * Math.exp(-Math.log(10000) / (half - 1) * i);
      out[i] = Math.sin(angle);
      out[half + i] = Math.cos(angle);
    }
    return out;
  }

  // rows of x (rows, inner) times the transposed w (outer, inner), plus bias (outer).   PyTorch's nn.Linear, with its layout of the weights.
  function linear(x, rows, {weight: w, bias, inner, outer}) {
    const out = new Float32Array(rows * outer);
    let i = 0;
    for (; i + 3 < rows; i += 4) {
      const x0 = i * inner, x1 = x0 + inner, x2 = x1 + inner, x3 = x2 + inner;
      let j = 0;
      for (; j + 3 < outer; j += 4) {
        const w0 = j * inner, w1 = w0 + inner, w2 = w1 + inner, w3 = w2 + inner;
        let a00 = 0, a01 = 0, a02 = 0, a03 = 0, a10 = 0, a11 = 0, a12 = 0, a13 = 0, a20 = 0, a21 = 0, a22 = 0, a23 = 0, a30 = 0, a31 = 0, a32 = 0, a33 = 0;
        for (let k = 0; k < inner; k++) {
          const u0 = w[w0 + k], u1 = w[w1 + k], u2 = w[w2 + k], u3 = w[w3 + k];
          let v = x[x0 + k]; a00 += v * u0; a01 += v * u1; a02 += v * u2; a03 += v * u3;
          v = x[x1 + k]; a10 += v * u0; a11 += v * u1; a12 += v * u2; a13 += v * u3;
          v = x[x2 + k]; a20 += v * u0; a21 += v * u1; a22 += v * u2; a23 += v * u3;
          v = x[x3 + k]; a30 += v * u0; a31 += v * u1; a32 += v * u2; a33 += v * u3;
        }
        const b0 = bias[j], b1 = bias[j + 1], b2 = bias[j + 2], b3 = bias[j + 3];
        let o = i * outer + j; out[o] = a00 + b0; out[o + 1] = a01 + b1; out[o + 2] = a02 + b2; out[o + 3] = a03 + b3;
        o += outer; out[o] = a10 + b0; out[o + 1] = a11 + b1; out[o + 2] = a12 + b2; out[o + 3] = a13 + b3;
        o += outer; out[o] = a20 + b0; out[o + 1] = a21 + b1; out[o + 2] = a22 + b2; out[o + 3] = a23 + b3;
        o += outer; out[o] = a30 + b0; out[o + 1] = a31 + b1; out[o + 2] = a32 + b2; out[o + 3] = a33 + b3;
      }
      for (; j < outer; j++) for (let r = i; r < i + 4; r++) out[r * outer + j] = bias[j] + dot(x, r * inner, w, j * inner, inner);
    }
    for (; i < rows; i++) for (let j = 0; j < outer; j++) out[i * outer + j] = bias[j] + dot(x, i * inner, w, j * inner, inner);
    return out;
  }

  function dot(a, i, b, j, n) {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += a[i + k] * b[j + k];
    return sum;
  }

  // The 3×3 neighbourhood of every pixel as one row of 9·C numbers; zeros beyond the edge.   before: rows of padding above and on the left.
  function columns({data, B, H, W, C}, stride, before) {
    const h = H / stride, w = W / stride, out = new Float32Array(B * h * w * 9 * C);
    let o = 0;
    for (let b = 0; b < B; b++) for (let i = 0; i < h; i++) for (let j = 0; j < w; j++)
      for (let di = 0; di < 3; di++) for (let dj = 0; dj < 3; dj++, o += C) {
        const r = i * stride + di - before, c = j * stride + dj - before;
        if (r < 0 || r >= H || c < 0 || c >= W) continue;
        const from = ((b * H + r) * W + c) * C;
        for (let k = 0; k < C; k++) out[o + k] = data[from + k];
      }
    return {rows: out, B, H: h, W: w};
  }

  function conv3(x, layer, stride = 1, before = 1) {
    const {rows, B, H, W} = columns(x, stride, before);
    return {data: linear(rows, B * H * W, layer), B, H, W, C: layer.outer};
  }

  const silu = v => v / (1 + Math.exp(-v));

  // Each group of channels of each image: mean 0, variance 1, then the learned scale and shift; and SiLU, which follows everywhere but before attention.
  function group_norm({data, B, H, W, C}, {weight, bias}, groups, then_silu) {
    const out = new Float32Array(data.length), width = C / groups, P = H * W;
    for (let b = 0; b < B; b++) for (let g = 0; g < groups; g++) {
      let sum = 0, squares = 0;
      const first = b * P * C + g * width;
      for (let p = 0; p < P; p++) for (let c = 0; c < width; c++) sum += data[first + p * C + c];
      const mean = sum / (P * width);
      for (let p = 0; p < P; p++) for (let c = 0; c < width; c++) squares += (data[first + p * C + c] - mean) ** 2;
      const scale = 1 / Math.sqrt(squares / (P * width) + 1e-6);
      for (let p = 0; p < P; p++) for (let c = 0; c < width; c++) {
        const v = (data[first + p * C + c] - mean) * scale * weight[g * width + c] + bias[g * width + c];
        out[first + p * C + c] = then_silu ? silu(v) : v;
      }
    }
    return {data: out, B, H, W, C};
  }

  // net.forward(x_t, t, y) → like x_t.   x_t (B, C, H, W) flat;  t one integer in 1 … T;  y: B labels, of which num_classes is the null label.
  class UNet {
    constructor(config, tensors) {
      this.config = config;
      this.layers = layers(tensors);
    }

    forward(x_t, t, y) {
      const c = this.config, B = y.length, last = c.mults.length - 1;
      const emb = this._emb(t, y);
      let h = conv3(pixels(x_t, B, c.channels), this._("conv_in"));
      const skips = [h];
      for (let level = 0; level <= last; level++) {
        for (let i = 0; i < c.blocks; i++) {
          h = this._block(`down.${level}.blocks.${i}`, h, emb);
          skips.push(h);
        }
        if (level < last) {
          h = conv3(h, this._(`down.${level}.resample.conv`), 2, 0);                    // half as high and wide; padded on the right and below only, as in [1]
          skips.push(h);
        }
      }
      h = this._block("middle.0", h, emb);
      h = this._block("middle.1", h, emb);
      for (let level = 0; level <= last; level++) {
        for (let i = 0; i <= c.blocks; i++) h = this._block(`up.${level}.blocks.${i}`, beside(h, skips.pop()), emb);
        if (level < last) h = conv3(doubled(h), this._(`up.${level}.resample.conv`));   // twice as high, twice as wide
      }
      h = conv3(group_norm(h, this._("norm_out"), c.groups, true), this._("conv_out"));
      return planes(h);
    }

    _(name) { return this.layers[name]; }

    // What the network knows besides the image: the time, through two layers, and the label's row of a table.   (B, 4·base)
    _emb(t, y) {
      const {base} = this.config, B = y.length, label = this._("label");
      const hidden = linear(timestep_embedding(t - 1, base), 1, this._("time.0")).map(silu);      // Ho's network counts from 0
      const time = linear(hidden, 1, this._("time.2")), emb = new Float32Array(B * time.length);
      for (let b = 0; b < B; b++) for (let k = 0; k < time.length; k++)
        emb[b * time.length + k] = silu(time[k] + (label ? label.weight[y[b] * time.length + k] : 0));
      return emb;
    }

    // Residual block, then self-attention where the level has it.
    _block(name, x, emb) {
      const {groups} = this.config, P = x.H * x.W;
      let h = conv3(group_norm(x, this._(`${name}.norm1`), groups, true), this._(`${name}.conv1`));
      const shift = linear(emb, x.B, this._(`${name}.emb`));
      for (let b = 0, k = 0; b < x.B; b++) for (let p = 0; p < P; p++) for (let c = 0; c < h.C; c++, k++) h.data[k] += shift[b * h.C + c];
      h = conv3(group_norm(h, this._(`${name}.norm2`), groups, true), this._(`${name}.conv2`));
      const shortcut = this._(`${name}.shortcut`), around = shortcut ? linear(x.data, x.B * P, shortcut) : x.data;
      for (let k = 0; k < h.data.length; k++) h.data[k] += around[k];
      return this._(`${name}.attention.qkv`) ? this._attention(`${name}.attention`, h) : h;
    }

    // Self-attention over the H·W positions, one head, residual: every pixel asks all pixels (q · k), and takes home a weighted mean of what they carry (v).
    _attention(name, x) {
      const {B, H, W, C} = x, P = H * W, qkv = linear(group_norm(x, this._(`${name}.norm`), this.config.groups, false).data, B * P, this._(`${name}.qkv`));
      const found = new Float32Array(B * P * C), weight = new Float64Array(P);
      for (let b = 0; b < B; b++) for (let p = 0; p < P; p++) {
        const q = (b * P + p) * 3 * C;
        let most = -Infinity, total = 0;
        for (let m = 0; m < P; m++) most = Math.max(most, weight[m] = dot(qkv, q, qkv, (b * P + m) * 3 * C + C, C) / Math.sqrt(C));
        for (let m = 0; m < P; m++) total += weight[m] = Math.exp(weight[m] - most);
        for (let c = 0; c < C; c++) {
          let sum = 0;
          for (let m = 0; m < P; m++) sum += weight[m] * qkv[(b * P + m) * 3 * C + 2 * C + c];
          found[(b * P + p) * C + c] = sum / total;
        }
      }
      const out = linear(found, B * P, this._(`${name}.out`));
      return {data: out.map((v, k) => v + x.data[k]), B, H, W, C};
    }
  }

  // "down.0.blocks.0.conv1.weight" and ".bias" become one layer.   3×3 weights (outer, C, 3, 3) are turned to (outer, 3, 3, C), as `columns` lays its rows.
  function layers(tensors) {
    const found = {};
    for (const [full, {shape, data}] of Object.entries(tensors)) {
      const name = full.replace(/^net\./, "").replace(/\.(weight|bias)$/, ""), layer = found[name] = found[name] || {};
      if (full.endsWith(".bias")) { layer.bias = data; continue; }
      layer.outer = shape[0];
      layer.inner = shape.slice(1).reduce((a, b) => a * b, 1);
      layer.weight = shape.length === 4 && shape[2] === 3 ? data.map((_, i) => {
        const C = shape[1], o = Math.floor(i / (9 * C)), rest = i % (9 * C), at = Math.floor(rest / C), c = rest % C;
        return data[(o * C + c) * 9 + at];
      }) : data;
    }
    return found;
  }

  // (B, C, H, W) → channels side by side, and back; for one channel both are the same numbers.
  function pixels(x, B, C) {
    const P = x.length / (B * C), side = Math.sqrt(P), data = new Float32Array(x.length);
    for (let b = 0; b < B; b++) for (let c = 0; c < C; c++) for (let p = 0; p < P; p++) data[(b * P + p) * C + c] = x[(b * C + c) * P + p];
    return {data, B, H: side, W: side, C};
  }

  function planes({data, B, H, W, C}) {
    const P = H * W, x = new Float32Array(data.length);
    for (let b = 0; b < B; b++) for (let c = 0; c < C; c++) for (let p = 0; p < P; p++) x[(b * C + c) * P + p] = data[(b * P + p) * C + c];
    return x;
  }

  // torch.cat([x, y], dim=1).
  function beside(x, y) {
    const C = x.C + y.C, P = x.B * x.H * x.W, data = new Float32Array(P * C);
    for (let p = 0; p < P; p++) {
      for (let c = 0; c < x.C; c++) data[p * C + c] = x.data[p * x.C + c];
      for (let c = 0; c < y.C; c++) data[p * C + x.C + c] = y.data[p * y.C + c];
    }
    return {...x, data, C};
  }

  // Every pixel four times.
  function doubled({data, B, H, W, C}) {
    const out = new Float32Array(data.length * 4);
    for (let b = 0, o = 0; b < B; b++) for (let i = 0; i < 2 * H; i++) for (let j = 0; j < 2 * W; j++, o += C) {
      const from = ((b * H + (i >> 1)) * W + (j >> 1)) * C;
      for (let c = 0; c < C; c++) out[o + c] = data[from + c];
    }
    return {data: out, B, H: 2 * H, W: 2 * W, C};
  }

  Object.assign(lab, {UNet, timestep_embedding});
});
