package dev.edge.core;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One pass over a JSON text (RFC 8259); IllegalArgumentException at the first character that is none. */
final class JsonReader {
    private static final int MAX_DEPTH = 64;

    private final String text;
    private int at;

    JsonReader(String text) {
        this.text = text;
    }

    /** The one value that the text is. */
    Object read() {
        Object value = value(0);
        space();
        if (at < text.length()) {
            throw wrong();
        }
        return value;
    }

    private IllegalArgumentException wrong() {
        return new IllegalArgumentException("no JSON at character " + at);
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char next() {
        if (at >= text.length()) {
            throw wrong();
        }
        return text.charAt(at++);
    }

    private boolean take(String word) {
        boolean here = text.startsWith(word, at);
        at += here ? word.length() : 0;
        return here;
    }

    private Object value(int depth) {
        if (depth > MAX_DEPTH) {
            throw wrong();
        }
        space();
        if (take("{")) {
            Map<String, Object> map = new LinkedHashMap<>();
            space();
            for (boolean more = !take("}"); more; more = more('}')) {
                space();
                expect('"');
                String key = string();
                space();
                expect(':');
                map.put(key, value(depth + 1));
            }
            return map;
        }
        if (take("[")) {
            List<Object> list = new ArrayList<>();
            space();
            for (boolean more = !take("]"); more; more = more(']')) {
                list.add(value(depth + 1));
            }
            return list;
        }
        if (take("\"")) {
            return string();
        }
        return take("true") ? Boolean.TRUE : take("false") ? Boolean.FALSE : take("null") ? null : number();
    }

    private void expect(char wanted) {
        if (next() != wanted) {
            throw wrong();
        }
    }

    /** Whether another item follows; else the list or object is closed by its own bracket. */
    private boolean more(char end) {
        space();
        char mark = next();
        if (mark != ',' && mark != end) {
            throw wrong();
        }
        return mark == ',';
    }

    private String string() {
        StringBuilder out = new StringBuilder();
        for (char c = next(); c != '"'; c = next()) {
            if (c < ' ') {
                throw wrong();
            }
            if (c != '\\') {
                out.append(c);
                continue;
            }
            char escape = next();
            int plain = "\"\\/bfnrt".indexOf(escape);
            if (plain >= 0) {
                out.append("\"\\/\b\f\n\r\t".charAt(plain));
            } else if (escape == 'u') {
                out.append(unit());
            } else {
                throw wrong();
            }
        }
        return out.toString();
    }

    /** Four hexadecimal digits: Integer.parseInt alone takes signs and the digits of other scripts too. */
    private char unit() {
        int unit = 0;
        for (int i = 0; i < 4; i++) {
            int digit = "0123456789abcdef".indexOf(Character.toLowerCase(next()));
            if (digit < 0) {
                throw wrong();
            }
            unit = unit << 4 | digit;
        }
        return (char) unit;
    }

    private Object number() {
        int start = at;
        while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        String digits = text.substring(start, at);
        if (digits.matches("-?(0|[1-9][0-9]{0,17})")) {
            return Long.valueOf(digits);
        }
        if (!digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) {
            throw wrong();
        }
        return Double.valueOf(digits);
    }
}
