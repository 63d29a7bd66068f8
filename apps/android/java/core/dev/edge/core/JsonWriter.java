package dev.edge.core;

import java.util.Map;

/** Values to the shortest JSON text; half surrogates and what a script tag would end in are escaped. */
final class JsonWriter {
    private JsonWriter() {}

    static void write(Object value, StringBuilder out) {
        if (value instanceof Map) {
            String mark = "{";
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                out.append(mark);
                quote((String) entry.getKey(), out);
                out.append(':');
                write(entry.getValue(), out);
                mark = ",";
            }
            out.append(mark.equals("{") ? "{}" : "}");
        } else if (value instanceof Iterable) {
            String mark = "[";
            for (Object item : (Iterable<?>) value) {
                out.append(mark);
                write(item, out);
                mark = ",";
            }
            out.append(mark.equals("[") ? "[]" : "]");
        } else if (value instanceof CharSequence) {
            quote(value.toString(), out);
        } else if (value instanceof Double && (((Double) value).isNaN() || ((Double) value).isInfinite())) {
            out.append("null");
        } else {
            out.append(value);
        }
    }

    private static void quote(String text, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            boolean pair =
                    Character.isHighSurrogate(c)
                            ? i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))
                            : !Character.isLowSurrogate(c) || i > 0 && Character.isHighSurrogate(text.charAt(i - 1));
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || c == '<' || c == '\u2028' || c == '\u2029' || !pair) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
