package dev.edge.core;

import java.util.LinkedHashMap;
import java.util.Map;

/** JSON (RFC 8259) as Map (in order), List, String, Double, Long, Boolean and null. */
public final class Json {
    private Json() {}

    /** Throws IllegalArgumentException for anything that is not one JSON value. */
    public static Object parse(String text) {
        if (text == null) {
            throw new IllegalArgumentException("no JSON");
        }
        return new JsonReader(text).read();
    }

    /** As `parse`, for an object. */
    @SuppressWarnings("unchecked")
    public static Map<String, Object> parseObject(String text) {
        Object value = parse(text);
        if (!(value instanceof Map)) {
            throw new IllegalArgumentException("not a JSON object");
        }
        return (Map<String, Object>) value;
    }

    /** An object of keys and values in turn. */
    public static Map<String, Object> object(Object... pairs) {
        Map<String, Object> map = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            map.put((String) pairs[i], pairs[i + 1]);
        }
        return map;
    }

    /** The shortest text of a value; half surrogates and what a script tag would end in are escaped. */
    public static String write(Object value) {
        StringBuilder out = new StringBuilder();
        JsonWriter.write(value, out);
        return out.toString();
    }
}
