// Photos from standard input for the peers in Node: a line `WIDTH HEIGHT`, then 8-bit RGB.
exports.answerPhotos = async (answer) => {
  let held = Buffer.alloc(0);
  const input = process.stdin[Symbol.asyncIterator]();
  const more = async () => {
    const { value, done } = await input.next();
    if (!done) held = Buffer.concat([held, value]);
    return !done;
  };
  for (;;) {
    let end;
    while ((end = held.indexOf(10)) < 0) if (!(await more())) return;
    const [width, height] = held.subarray(0, end).toString().split(' ').map(Number);
    const size = end + 1 + width * height * 3;
    while (held.length < size) if (!(await more())) return;
    const pixels = new Uint8Array(held.subarray(end + 1, size));
    held = held.subarray(size);
    process.stdout.write(JSON.stringify(await answer(pixels, width, height)) + '\n');
  }
};
