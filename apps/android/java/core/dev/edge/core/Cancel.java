package dev.edge.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A flag that any thread sets and the C code reads in the middle of its work. */
public final class Cancel {
    final ByteBuffer flag = ByteBuffer.allocateDirect(4).order(ByteOrder.nativeOrder());

    public synchronized void set() {
        flag.putInt(0, 1);
    }

    public synchronized void clear() {
        flag.putInt(0, 0);
    }

    public synchronized boolean isSet() {
        return flag.getInt(0) != 0;
    }
}
