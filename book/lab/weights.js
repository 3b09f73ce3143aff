// Tensors and a JSON header out of a safetensors file.   Beside: ddpm_tutorial/weights/files.py
//
// The page carries the very file that the package ships, in base64.  Its layout: 8 bytes with the header's length, the header in JSON (for each name its
// type, shape
// and place), and then the numbers.  They are float16 there, 2 bytes each, and float32 from here on.
"use strict";

room(lab => {
  function read(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length), view = new DataView(bytes.buffer);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const length = Number(view.getBigUint64(0, true)), entries = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const tensors = {};
    const header = JSON.parse(entries.__metadata__.header);
    delete entries.__metadata__;
    for (const [name, {dtype, shape, data_offsets: [first, end]}] of Object.entries(entries)) {
      if (dtype !== "F16") throw new TypeError(`${name} is ${dtype}; this reader knows float16 only`);
      const data = new Float32Array((end - first) / 2);
      for (let i = 0; i < data.length; i++) data[i] = half(view.getUint16(8 + length + first + 2 * i, true));
      tensors[name] = {shape, data};
    }
    return {tensors, ...header};
  }

  // 1 bit for the sign, 5 for the exponent, 10 for the fraction.   Weights are finite, so the exponent 31 does not occur.
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }

  Object.assign(lab, {read});
});
