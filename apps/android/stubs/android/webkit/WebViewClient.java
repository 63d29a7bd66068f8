package android.webkit;

public class WebViewClient {
    public native WebResourceResponse shouldInterceptRequest(WebView view, WebResourceRequest request);
    public native boolean shouldOverrideUrlLoading(WebView view, WebResourceRequest request);
    public native boolean onRenderProcessGone(WebView view, RenderProcessGoneDetail detail);
    public native void onPageFinished(WebView view, String url);
}
