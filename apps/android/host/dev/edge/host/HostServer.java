package dev.edge.host;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import com.sun.net.httpserver.HttpServer;
import dev.edge.core.Controller;
import dev.edge.core.Events;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.Charset;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.Executors;

/**
 * For tests only: the app's controller, engine and page on this computer, over HTTP on loopback.
 *
 * <p>Arguments: www (the page's folder) files assets pushed libraries proc. Prints its address, and ends with its
 * standard input.
 */
public final class HostServer implements Events {
    private static final Charset UTF_8 = Charset.forName("UTF-8");

    private final List<OutputStream> listeners = new ArrayList<>();
    private final File www;
    private final File uploads;
    private final Controller controller;

    private HostServer(String[] folders) {
        www = new File(folders[0]);
        uploads = new File(folders[1], "uploads");
        uploads.mkdirs();
        controller = new Controller(new HostPlatform(folders), this);
    }

    public static void main(String[] arguments) throws IOException {
        HostServer server = new HostServer(arguments);
        HttpServer http = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        http.createContext("/request", server.new Requests());
        http.createContext("/events", server.new Stream());
        http.createContext("/import", server.new Import());
        http.createContext("/", server.new Page());
        http.setExecutor(Executors.newCachedThreadPool());
        http.start();
        System.out.println("http://127.0.0.1:" + http.getAddress().getPort());
        while (System.in.read() >= 0) {
            continue;
        }
        server.controller.close();
        System.out.println("closed");
        System.exit(0);
    }

    @Override
    public void event(String json) {
        synchronized (listeners) {
            for (Iterator<OutputStream> all = listeners.iterator(); all.hasNext(); ) {
                try {
                    OutputStream out = all.next();
                    out.write(("data: " + json + "\n\n").getBytes(UTF_8));
                    out.flush();
                } catch (IOException gone) {
                    all.remove();
                }
            }
        }
    }

    private static byte[] read(InputStream in) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        pump(in, out);
        return out.toByteArray();
    }

    private static void pump(InputStream in, OutputStream out) throws IOException {
        byte[] piece = new byte[1 << 16];
        for (int count = in.read(piece); count >= 0; count = in.read(piece)) {
            out.write(piece, 0, count);
        }
    }

    private final class Requests implements HttpHandler {
        @Override
        public void handle(HttpExchange exchange) throws IOException {
            controller.request(new String(read(exchange.getRequestBody()), UTF_8));
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        }
    }

    private final class Stream implements HttpHandler {
        @Override
        public void handle(HttpExchange exchange) throws IOException {
            exchange.getResponseHeaders().set("Content-Type", "text/event-stream");
            exchange.getResponseHeaders().set("Cache-Control", "no-store");
            exchange.sendResponseHeaders(200, 0);
            OutputStream out = exchange.getResponseBody();
            out.write(": connected\n\n".getBytes(UTF_8));
            out.flush();
            synchronized (listeners) {
                listeners.add(out);
            }
        }
    }

    private final class Import implements HttpHandler {
        @Override
        public void handle(HttpExchange exchange) throws IOException {
            String name = exchange.getRequestURI().getQuery().replaceFirst("^name=", "");
            File file = File.createTempFile("upload", null, uploads);
            try (OutputStream out = new FileOutputStream(file)) {
                pump(exchange.getRequestBody(), out);
            }
            controller.importFile(name, new FileInputStream(file), file.length());
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        }
    }

    private final class Page implements HttpHandler {
        @Override
        public void handle(HttpExchange exchange) throws IOException {
            String path = exchange.getRequestURI().getPath();
            File file = new File(www, path.equals("/") ? "index.html" : path);
            boolean inside = file.getCanonicalPath().startsWith(www.getCanonicalPath() + File.separator);
            if (!inside || !file.isFile()) {
                exchange.sendResponseHeaders(404, -1);
                exchange.close();
                return;
            }
            exchange.getResponseHeaders().set("Content-Type", type(file.getName()));
            exchange.sendResponseHeaders(200, 0);
            try (InputStream in = new FileInputStream(file); OutputStream out = exchange.getResponseBody()) {
                pump(in, out);
            }
        }
    }

    private static String type(String name) {
        return name.endsWith(".html")
                ? "text/html; charset=utf-8"
                : name.endsWith(".css")
                        ? "text/css"
                        : name.endsWith(".js") ? "text/javascript" : name.endsWith(".svg") ? "image/svg+xml" : "image/png";
    }
}
