package dev.edge.core;

import java.util.regex.Pattern;

/** Runs of letters, digits, marks: some of llama.cpp's pre-tokenizers recurse through each (std::regex's stack). */
final class Runs {
    /** White space as those pre-tokenizers have it, a character class. */
    static final String SPACE = "[\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";

    private static final Pattern IS_SPACE = Pattern.compile(SPACE);

    private Runs() {}

    /** The longest run of one kind of character, as converters.gguf.long_words counts. */
    static int longest(String text) {
        int longest = 0;
        int run = 0;
        char last = 0;
        for (int i = 0; i < text.length(); i += Character.charCount(text.codePointAt(i))) {
            char kind = kind(text.codePointAt(i));
            boolean mark = kind == 'M' && (last == 'L' || last == 'P') || last == 'M' && (kind == 'L' || kind == 'P');
            boolean joins = kind == last || mark;
            run = joins ? run + 1 : 1;
            last = joins && kind == 'M' ? last : kind;
            longest = Math.max(longest, run);
        }
        return longest;
    }

    private static char kind(int character) {
        if (IS_SPACE.matcher(new String(Character.toChars(character))).matches()) {
            return 'Z';
        }
        int type = Character.getType(character);
        boolean mark =
                type == Character.NON_SPACING_MARK
                        || type == Character.COMBINING_SPACING_MARK
                        || type == Character.ENCLOSING_MARK;
        boolean digit =
                type == Character.DECIMAL_DIGIT_NUMBER
                        || type == Character.LETTER_NUMBER
                        || type == Character.OTHER_NUMBER;
        return Character.isLetter(character) ? 'L' : mark ? 'M' : digit ? 'N' : 'P';
    }
}
