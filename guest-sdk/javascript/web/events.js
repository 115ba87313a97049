// EventTarget and AbortController.

export class DOMError extends Error {
  constructor(message, name = "Error") {
    super(message);
    this.name = name;
  }
}

export class Event {
  constructor(type) {
    this.type = String(type);
    this.defaultPrevented = false;
  }

  preventDefault() {
    this.defaultPrevented = true;
  }
}

export class EventTarget {
  #listeners = new Map();

  addEventListener(type, listener, options) {
    const once = typeof options === "object" && options?.once === true;
    const listeners = this.#listeners.get(type) ?? [];
    if (!listeners.some((own) => own.listener === listener)) {
      this.#listeners.set(type, [...listeners, { listener, once }]);
    }
  }

  removeEventListener(type, listener) {
    const listeners = this.#listeners.get(type) ?? [];
    this.#listeners.set(type, listeners.filter((own) => own.listener !== listener));
  }

  dispatchEvent(event) {
    event.target = this;
    this[`on${event.type}`]?.call(this, event);
    for (const { listener, once } of this.#listeners.get(event.type) ?? []) {
      if (once) this.removeEventListener(event.type, listener);
      if (typeof listener === "function") listener.call(this, event);
      else listener.handleEvent(event);
    }
    return !event.defaultPrevented;
  }
}

export class AbortSignal extends EventTarget {
  aborted = false;
  reason = undefined;
  onabort = null;

  throwIfAborted() {
    if (this.aborted) throw this.reason;
  }

  static abort(reason) {
    const controller = new AbortController();
    controller.abort(reason);
    return controller.signal;
  }

  static timeout(milliseconds) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new DOMError("the time is over", "TimeoutError")), milliseconds);
    return controller.signal;
  }
}

export class AbortController {
  signal = new AbortSignal();

  abort(reason = new DOMError("it was aborted", "AbortError")) {
    if (this.signal.aborted) return;
    this.signal.aborted = true;
    this.signal.reason = reason;
    this.signal.dispatchEvent(new Event("abort"));
  }
}
