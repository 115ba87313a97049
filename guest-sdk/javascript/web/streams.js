// ReadableStream, as far as bodies need it: one reader, pull and start.

export class ReadableStream {
  #queue = [];
  #source;
  #waiting = [];
  #state = "readable";
  #error;
  #pulling = false;
  #started;
  locked = false;

  constructor(source = {}) {
    this.#source = source;
    const controller = (this.controller = {
      enqueue: (chunk) => {
        if (this.#state !== "readable") throw new TypeError("the stream is closed");
        const waiting = this.#waiting.shift();
        if (waiting) waiting.resolve({ value: chunk, done: false });
        else this.#queue.push(chunk);
      },
      close: () => {
        if (this.#state !== "readable") throw new TypeError("the stream is closed already");
        this.#state = "closed";
        for (const { resolve } of this.#waiting.splice(0)) resolve({ value: undefined, done: true });
      },
      error: (error) => {
        if (this.#state !== "readable") return;
        this.#state = "errored";
        this.#error = error;
        for (const { reject } of this.#waiting.splice(0)) reject(error);
      },
      get desiredSize() {
        return 1;
      },
    });
    let started;
    try {
      started = source.start?.(controller);
    } catch (error) {
      controller.error(error);
      throw error;
    }
    this.#started = Promise.resolve(started).catch((error) => controller.error(error));
  }

  static from(iterable) {
    const iterator = (iterable[Symbol.asyncIterator] ?? iterable[Symbol.iterator]).call(iterable);
    let cancelled = false;
    return new ReadableStream({
      async pull(controller) {
        const { value, done } = await iterator.next();
        if (cancelled) return;
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => {
        cancelled = true;
        return iterator.return?.(reason);
      },
    });
  }

  #next() {
    if (this.#queue.length > 0) return Promise.resolve({ value: this.#queue.shift(), done: false });
    if (this.#state === "errored") return Promise.reject(this.#error);
    if (this.#state === "closed") return Promise.resolve({ value: undefined, done: true });
    const next = new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#pull();
    return next;
  }

  async #pull() {
    if (this.#pulling || typeof this.#source.pull !== "function") return;
    this.#pulling = true;
    try {
      await this.#started;
      while (this.#waiting.length > 0 && this.#state === "readable") {
        await this.#source.pull(this.controller);
      }
    } catch (error) {
      this.controller.error(error);
    } finally {
      this.#pulling = false;
    }
  }

  getReader() {
    if (this.locked) throw new TypeError("the stream has a reader already");
    this.locked = true;
    return {
      read: () => this.#next(),
      cancel: (reason) => this.#cancel(reason),
      releaseLock: () => {
        this.locked = false;
      },
    };
  }

  async #cancel(reason) {
    if (this.#state === "readable") {
      this.#state = "closed";
      this.#queue = [];
      for (const { resolve } of this.#waiting.splice(0)) resolve({ value: undefined, done: true });
      await this.#source.cancel?.(reason);
    }
  }

  async cancel(reason) {
    if (this.locked) throw new TypeError("the stream has a reader");
    return this.#cancel(reason);
  }

  async *[Symbol.asyncIterator]() {
    const reader = this.getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        yield value;
      }
    } finally {
      await reader.cancel();
      reader.releaseLock();
    }
  }

  get [Symbol.toStringTag]() {
    return "ReadableStream";
  }
}
