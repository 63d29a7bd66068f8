package dev.edge.app;

import android.net.Uri;
import java.net.URI;

/** For tests: the content type that the activity gives to each address among the arguments, one a line. */
public final class AddressProbe {
    /** Android's Uri over java.net's. */
    private static final class Parsed extends Uri {
        private final URI uri;

        Parsed(String address) {
            uri = URI.create(address);
        }

        @Override
        public String getScheme() {
            return uri.getScheme();
        }

        @Override
        public String getAuthority() {
            return uri.getAuthority();
        }

        @Override
        public String getPath() {
            return uri.getPath();
        }

        @Override
        public String getLastPathSegment() {
            throw new UnsupportedOperationException();
        }
    }

    public static void main(String[] addresses) {
        for (String address : addresses) {
            System.out.println(Assets.type(new Parsed(address)));
        }
    }
}
