// What console.log writes for a value.

export function format(values) {
  return values.map((value) => (typeof value === "string" ? value : inspect(value, new Set(), 0))).join(" ");
}

function inspect(value, above, depth) {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return `[function ${value.name || "without a name"}]`;
  if (value === null || typeof value !== "object") return String(value);
  if (value instanceof Error) return value.stack ? `${value}\n${value.stack}`.trimEnd() : String(value);
  if (above.has(value)) return "[circular]";
  if (depth > 4) return Array.isArray(value) ? "[…]" : "{…}";
  const inside = new Set(above).add(value);
  const next = (part) => inspect(part, inside, depth + 1);
  if (Array.isArray(value)) return `[${value.map(next).join(", ")}]`;
  if (value instanceof Date) return value.toISOString();
  if (value instanceof RegExp || value instanceof Promise) return String(value);
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${value.length ?? value.byteLength})`;
  const name = value.constructor?.name ?? "";
  const iterable = value instanceof Map || value instanceof Set;
  const parts = iterable
    ? [...value].map(next)
    : Object.entries(value).map(([key, part]) => `${key}: ${next(part)}`);
  const prefix = name === "" || name === "Object" ? "" : `${name} `;
  return parts.length === 0 ? `${prefix}{}` : `${prefix}{ ${parts.join(", ")} }`;
}
