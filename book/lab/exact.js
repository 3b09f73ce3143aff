// Data whose perfect denoiser is known in closed form: what a trained network tries to become.   Beside: ddpm_tutorial/exact.py
//
// With these, everything about schedules, samplers and guidance can be shown without training: what is left is the method's own error.
// The one identity behind the file is Tweedie's formula,  ε*(x_t, t) = E[ε | x_t] = -√(1-ᾱ_t) ∇ log q_t(x_t).
"use strict";

room(lab => {
  // A mixture of K round Gaussians in D dimensions; noised by q it stays one, with means √ᾱ_t μ_k and variances ᾱ_t v_k + (1-ᾱ_t).
  // With v = 0 it is a finite data set, and its perfect denoiser returns nothing but the data: generalising is what a network does *wrong*.
  class Mixture {
    // means [[…], …] (K of D numbers);  variance: one number, or K;  weights: default equal;  labels: the class of each component, default 0 … K-1.
    constructor(means, variance, weights = null, labels = null) {
      const K = means.length;
      this.K = K;
      this.D = means[0].length;
      this.means = Float64Array.from(means.flat());
      this.variance = Float64Array.from({length: K}, (_, k) => typeof variance === "number" ? variance : variance[k]);
      const total = weights ? weights.reduce((a, b) => a + b) : K;
      this.log_w = Float64Array.from({length: K}, (_, k) => Math.log((weights ? weights[k] : 1) / total));
      this.labels = labels || Array.from({length: K}, (_, k) => k);
    }

    // n points and their labels; noise() as from seeded_noise, and u(i) a number in 0 … 1 that chooses the component of point i.
    sample(n, z, u) {
      const x_0 = new Float64Array(n * this.D), labels = [];
      for (let i = 0; i < n; i++) {
        let k = 0, left = u(i);
        while (k < this.K - 1 && (left -= Math.exp(this.log_w[k])) > 0) k++;
        for (let d = 0; d < this.D; d++) x_0[i * this.D + d] = this.means[k * this.D + d] + Math.sqrt(this.variance[k]) * z[i * this.D + d];
        labels.push(this.labels[k]);
      }
      return [x_0, labels];
    }

    // ε*(x_t, t), of the whole mixture, or of class y.
    denoiser(schedule, y = null) {
      const {K, D, means, variance, log_w, labels} = this, of_class = Array.from({length: K}, (_, k) => k).filter(k => y === null || labels[k] === y);
      const log_p = new Float64Array(K);
      return (x_t, t) => {
        const alpha_bar = schedule.at(t), signal = schedule.signal(t), noise = schedule.noise(t), eps = new Float64Array(x_t.length);
        for (let b = 0; b < x_t.length; b += D) {
          let most = -Infinity, total = 0;
          for (const k of of_class) {                           // log w_k N(x_t; √ᾱ μ_k, ᾱ v_k + 1-ᾱ), up to what is the same for all k
            const v = alpha_bar * variance[k] + 1 - alpha_bar;
            let square = 0;
            for (let d = 0; d < D; d++) square += (x_t[b + d] - signal * means[k * D + d]) ** 2;
            log_p[k] = log_w[k] - 0.5 * (square / v + D * Math.log(v));
            if (log_p[k] > most) most = log_p[k];
          }
          for (const k of of_class) {                           // ε* is the average of each component's own, weighted by p(component | x_t), a softmax
            const v = alpha_bar * variance[k] + 1 - alpha_bar, share = Math.exp(log_p[k] - most);
            total += share;
            for (let d = 0; d < D; d++) eps[b + d] += share * noise * (x_t[b + d] - signal * means[k * D + d]) / v;
          }
          for (let d = 0; d < D; d++) eps[b + d] /= total;
        }
        return eps;
      };
    }
  }

  // K small Gaussians on a circle: the picture everyone knows, and class k is the k-th of them.
  function ring(K = 8, radius = 1, std = 0.1) {
    const means = Array.from({length: K}, (_, k) => [radius * Math.cos(2 * Math.PI * k / K), radius * Math.sin(2 * Math.PI * k / K)]);
    return new Mixture(means, std ** 2);
  }

  // Two half circles that reach into each other, each a row of K small Gaussians: classes 0 (above) and 1 (below).
  function moons(K = 16, std = 0.08) {
    const angle = k => Math.PI * k / (K - 1);
    const above = Array.from({length: K}, (_, k) => [Math.cos(angle(k)) - 0.5, Math.sin(angle(k)) - 0.25]);
    const below = Array.from({length: K}, (_, k) => [0.5 - Math.cos(angle(k)), 0.25 - Math.sin(angle(k))]);
    return new Mixture([...above, ...below], std ** 2, null, [...above.map(() => 0), ...below.map(() => 1)]);
  }

  Object.assign(lab, {Mixture, moons, ring});
});
