package dev.edge.core;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** Small files whole, large ones in pieces; what is written is there whole or not at all. */
final class Files {
    /** Told the bytes so far; false stops. */
    interface Advance {
        boolean on(long bytes);
    }

    private static final int PIECE = 1 << 20;
    private static final long MARGIN = 32L << 20;

    private Files() {}

    static String read(File file) throws IOException {
        try (InputStream in = new FileInputStream(file)) {
            return read(in);
        }
    }

    static String read(InputStream in) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        byte[] piece = new byte[8192];
        for (int count = in.read(piece); count >= 0; count = in.read(piece)) {
            out.write(piece, 0, count);
        }
        return out.toString("UTF-8");
    }

    static void write(File file, String text) throws IOException {
        File next = new File(file.getPath() + ".part");
        try (FileOutputStream out = new FileOutputStream(next)) {
            out.write(text.getBytes("UTF-8"));
            out.getFD().sync();
        }
        rename(next, file);
    }

    static void rename(File from, File to) throws IOException {
        if (!from.renameTo(to)) {
            from.delete();
            throw new IOException("cannot write " + to);
        }
    }

    /** Copies to `file`.part and renames; the hex SHA-256. Failure storage or stopped; then nothing is left. */
    static String copy(InputStream in, File file, long size, Advance advance) throws Failure {
        File next = new File(file.getPath() + ".part");
        File folder = file.getParentFile();
        folder.mkdirs();
        long free = folder.getUsableSpace();
        if (size >= 0 && size + MARGIN > free) {
            throw new Failure(
                    "storage",
                    file.getName() + " takes " + (size >> 20) + " MB, " + (free >> 20) + " MB are free",
                    "make room on the device");
        }
        try (FileOutputStream out = new FileOutputStream(next)) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            pump(in, out, digest, advance);
            out.getFD().sync();
            rename(next, file);
            return hex(digest.digest());
        } catch (IOException error) {
            throw new Failure("storage", file.getName() + ": " + error.getMessage(), "make room on the device");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        } finally {
            next.delete();
        }
    }

    /** Hex SHA-256 of a file. Failure storage or stopped. */
    static String sha256(File file, Advance advance) throws Failure {
        try (InputStream in = new FileInputStream(file)) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            pump(in, null, digest, advance);
            return hex(digest.digest());
        } catch (IOException error) {
            throw new Failure("storage", file.getName() + ": " + error.getMessage(), "copy the file again");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void pump(InputStream in, FileOutputStream out, MessageDigest digest, Advance advance)
            throws IOException, Failure {
        byte[] piece = new byte[PIECE];
        long total = 0;
        for (int count = in.read(piece); count >= 0; count = in.read(piece)) {
            digest.update(piece, 0, count);
            if (out != null) {
                out.write(piece, 0, count);
            }
            total += count;
            if (!advance.on(total)) {
                throw new Failure("stopped", "it was stopped", "start again");
            }
        }
    }

    private static String hex(byte[] bytes) {
        StringBuilder out = new StringBuilder();
        for (byte b : bytes) {
            out.append(String.format("%02x", b & 0xff));
        }
        return out.toString();
    }

    static void delete(File file) {
        File[] inside = file.listFiles();
        if (inside != null) {
            for (File one : inside) {
                delete(one);
            }
        }
        file.delete();
    }
}
