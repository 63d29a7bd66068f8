package android.webkit;

import android.content.Context;
import android.content.pm.PackageInfo;
import android.view.ViewGroup;

public class WebView extends ViewGroup {
    public WebView(Context context) {
        super(context);
    }
    public static native PackageInfo getCurrentWebViewPackage();
    public native WebSettings getSettings();
    public native void setWebViewClient(WebViewClient client);
    public native void addJavascriptInterface(Object object, String name);
    public native void evaluateJavascript(String script, ValueCallback<String> result);
    public native void loadUrl(String url);
    public native void destroy();
}
