package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Credential is what a person has for one registry.
type Credential struct {
	Username, Password string
	IdentityToken      string // got at a login instead of keeping the password: it is exchanged for others
	RegistryToken      string // sent as it is
}

// secrets are the parts that no message may show.
func (c *Credential) secrets() []string {
	list := []string{c.Password, c.IdentityToken, c.RegistryToken}
	if c.Password != "" {
		list = append(list, basic(c.Username, c.Password))
	}
	return list
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// auth is what it takes to be let in by one host. Nothing of it is sent to another scheme, host or port, but for what a
// token costs: that goes where the host says tokens are, over TLS if the host itself speaks it.
type auth struct {
	host       *host
	credential Credential
	offline    bool // ask for an identity token too, at a login

	// mu protects the following.
	mu       sync.Mutex
	basic    bool              // the host wants name and password each time
	tokens   map[string]token  // by scope
	asking   map[string]*quest // by scope: those who are asking for a token, of whom there is one at a time
	identity string            // the identity token that came with one
}

// quest is somebody's request for a token, which others wait for as long as they care to.
type quest struct {
	done chan struct{} // closed when the following is known
	err  error
	left bool // nobody waited for the answer: it says nothing
}

type token struct {
	value string
	until time.Time
}

// have is the Authorization to begin with, "" before the host asked for one.
func (a *auth) have(scope string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known(scope)
}

func (a *auth) known(scope string) string {
	if a.basic {
		return "Basic " + basic(a.credential.Username, a.credential.Password)
	}
	if t, ok := a.tokens[scope]; ok && time.Now().Before(t.until) {
		return "Bearer " + t.value
	}
	return ""
}

// answer is the Authorization that the challenges of a host ask for, "" when there is none or it was tried already.
func (a *auth) answer(ctx context.Context, headers []string, scope, tried string) (string, error) {
	challenges := parseChallenges(headers)
	if i := slices.IndexFunc(challenges, func(c challenge) bool { return c.scheme == "bearer" }); i >= 0 {
		return a.bearer(ctx, challenges[i], scope, tried)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.known(scope); now != tried && now != "" {
		return now, nil // somebody else got it meanwhile
	}
	for _, c := range challenges {
		if c.scheme == "basic" && a.credential.Username != "" && !a.basic {
			a.basic = true
			return a.known(scope), nil
		}
	}
	return "", nil
}

// bearer is the Authorization with a token. Of all who want one for the same scope one asks, and the others wait for it;
// should the one give up, the next asks.
func (a *auth) bearer(ctx context.Context, c challenge, scope, tried string) (string, error) {
	for {
		a.mu.Lock()
		if now := a.known(scope); now != tried && now != "" {
			a.mu.Unlock()
			return now, nil
		}
		q := a.asking[scope]
		if q == nil {
			q = &quest{done: make(chan struct{})}
			a.asking[scope] = q
			delete(a.tokens, scope)
			a.mu.Unlock()
			return a.quest(ctx, q, c, scope)
		}
		a.mu.Unlock()
		select {
		case <-q.done:
			if q.err != nil && !q.left {
				return "", q.err
			}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// quest asks for a token, and tells those who wait for it.
func (a *auth) quest(ctx context.Context, q *quest, c challenge, scope string) (string, error) {
	t, err := a.token(ctx, c, scope)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.asking, scope)
	q.err, q.left = err, ctx.Err() != nil
	close(q.done)
	if err != nil {
		return "", err
	}
	a.tokens[scope] = t
	return "Bearer " + t.value, nil
}

// The life of a token whose answer names none, and how much earlier it is not used any more.
const (
	tokenLife  = time.Minute
	tokenSpare = 5 * time.Second
)

// token asks for one where the challenge says.
func (a *auth) token(ctx context.Context, c challenge, scope string) (token, error) {
	if t := a.credential.RegistryToken; t != "" {
		return token{t, time.Now().Add(24 * time.Hour)}, nil
	}
	ask, err := a.tokenCall(c, scope)
	if err != nil {
		return token{}, err
	}
	resp, err := a.ask(ctx, ask)
	if err != nil {
		return token{}, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		err := a.host.answerError(resp)
		if resp.StatusCode == http.StatusUnauthorized && err.Message == "" {
			err.Code, err.Message = "UNAUTHORIZED", "incorrect username or password"
		}
		return token{}, err
	}
	var got struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		Refresh     string    `json:"refresh_token"`
		ExpiresIn   int64     `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err == nil {
		err = json.Unmarshal(data, &got)
	}
	value := cmp.Or(got.Token, got.AccessToken)
	if err != nil || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token{}, final("%s answers with no token", ask.url.Host)
	}
	if got.Refresh != "" {
		a.mu.Lock()
		a.identity = got.Refresh
		a.mu.Unlock()
	}
	life := time.Duration(min(got.ExpiresIn, 24*60*60)) * time.Second
	if life <= 0 {
		life = tokenLife
	}
	return token{value, time.Now().Add(life - min(tokenSpare, life/4))}, nil
}

// ask makes a token's request, which goes to the host itself or guarded away from it. It is repeated as others are.
func (a *auth) ask(ctx context.Context, c call) (*http.Response, error) {
	h := a.host
	p := pace{host: h}
	for {
		// Authorization stands in the header: follow would leave it behind on the way, but this is where it belongs.
		resp, err := h.tokenTrip(ctx, c)
		if !passing(resp, err) || !p.wait(ctx, resp, err) {
			return resp, err
		}
		drop(resp)
	}
}

// tokenTrip follows redirects of a token's request within its origin only: what is asked with is a password.
func (h *host) tokenTrip(ctx context.Context, c call) (*http.Response, error) {
	u := c.url
	for hop := 0; ; hop++ {
		req, err := h.request(c, u)
		if err != nil {
			return nil, err
		}
		resp, err := h.roundTrip(ctx, req, sameOrigin(u, h.url()))
		if err != nil {
			return nil, err
		}
		next, err := h.redirect(resp, u)
		if next == nil && err == nil {
			return resp, nil
		}
		drop(resp)
		if err != nil {
			return nil, err
		}
		if hop == maxHops || !sameOrigin(next, c.url) {
			return nil, final("%s redirects the request for a token to %s: refused", c.url.Host, next.Host)
		}
		u = next
	}
}

// tokenCall is the request for a token: by the distribution specification, or by OAuth 2 with an identity token.
func (a *auth) tokenCall(c challenge, scope string) (call, error) {
	realm, err := a.host.checked(c.params["realm"], a.host.url())
	if err != nil {
		return call{}, err
	}
	if c.params["realm"] == "" {
		return call{}, final("%s asks for a token and does not say where they are", a.host.place.Addr)
	}
	scopes := strings.Fields(scope)
	for _, s := range strings.Fields(c.params["scope"]) {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	q := url.Values{}
	if s := c.params["service"]; s != "" {
		q.Set("service", s)
	}
	ask := call{method: http.MethodGet, url: realm, header: http.Header{}}
	if t := a.credential.IdentityToken; t != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", t)
		q.Set("client_id", a.host.agent)
		q.Set("scope", strings.Join(scopes, " "))
		form := q.Encode()
		ask.method, ask.size = http.MethodPost, int64(len(form))
		ask.header.Set("Content-Type", "application/x-www-form-urlencoded")
		ask.body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(form)), nil }
		return ask, nil
	}
	q["scope"] = scopes
	if user := a.credential.Username; user != "" {
		q.Set("account", user)
		if a.offline {
			q.Set("offline_token", "true")
			q.Set("client_id", a.host.agent)
		}
		ask.header.Set("Authorization", "Basic "+basic(user, a.credential.Password))
	}
	if realm.RawQuery != "" {
		realm.RawQuery += "&"
	}
	realm.RawQuery += q.Encode()
	return ask, nil
}

// hide takes what must not be shown out of a text.
func (a *auth) hide(s string) string {
	secrets := a.credential.secrets()
	for _, values := range a.host.place.Header {
		secrets = append(secrets, values...)
	}
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "xxxxx")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tokens {
		s = strings.ReplaceAll(s, t.value, "xxxxx")
	}
	return s
}
