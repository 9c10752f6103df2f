package examples

import (
	"os"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// TestPageSignIn shows the page to those who have a token, over TLS.
func TestPageSignIn(t *testing.T) {
	clients(t)
	h := newHost(t, webProject("one"))
	cert, key := h.certificate()
	operator, operatorLine := h.token("operator")
	viewer, viewerLine := h.token("viewer")
	tokens := h.file("tokens", operatorLine+"\n"+viewerLine+"\n")
	config := h.file("config.toml", `
tls-cert = "`+cert+`"
tls-key = "`+key+`"
tokens = "`+tokens+`"
[[grant]]
locations = ["web"]
read = ["token:viewer"]
deploy = ["token:operator"]
rollback = ["token:operator"]
`)
	h.serve = []string{"--http", "127.0.0.1:0"}
	address := h.serveTrusting(config, "")
	t.Setenv("PEXPRESS_CODESERVER_CA", cert)
	t.Setenv("PEXPRESS_CODESERVER_TOKEN", operator)
	h.run("deploy", "--to", address)
	h.write("web/word.py", "WORD = \"two\"\n")
	h.run("deploy", "--to", address)

	b := newBrowser(t, h.pageAddress(), chromedp.IgnoreCertErrors)
	b.open("/")
	b.reads("main", "Sign in", "codeserver token NAME")
	b.screenshots("signin", nil)
	b.signIn("wrong")
	b.reads(".error", "no one knows the token")
	b.signIn(viewer)
	b.reads("#who", "token:viewer")
	b.click(`a[href="#/location/web"]`)
	b.reads(".log", "serving two")
	require.True(t, eval[bool](b, "document.querySelector('.head button.main').disabled"), "a viewer cannot roll back")
	b.click("button[data-do=sign-out]")
	b.reads("main", "Sign in")

	b.signIn(operator)
	b.reads("#who", "token:operator")
	cookies := command(b, network.GetCookies, network.GetCookiesParams{}).Cookies
	require.Len(t, cookies, 1)
	require.True(t, cookies[0].HTTPOnly)
	require.True(t, cookies[0].Secure)
	require.Equal(t, network.CookieSameSiteStrict, cookies[0].SameSite)
	require.Empty(t, eval[string](b, "document.cookie"), "scripts do not see it")
	b.run(chromedp.Reload())
	b.reads("#who", "token:operator")
	b.click(mainButton)
	b.click("dialog button.main")
	b.reads("dialog", "web serves")
	b.click("dialog .actions button:first-child")

	// Who takes the token out of the file ends its sessions.
	require.NoError(t, os.WriteFile(tokens, []byte(viewerLine+"\n"), 0o600))
	b.reads("main", "Sign in", "Token")
	b.fine("a status of 401")
}

func (b *browser) signIn(token string) {
	b.t.Helper()
	b.reads("main", "Sign in")
	b.run(chromedp.Evaluate[chromedp.Void]("document.querySelector('#token').value = ''"), chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"))
}
