# Golden values of calibration. Run once: Rscript tests/golden/make/calibration.R tests/golden/calibration.json
# R 4.2.2, rms 6.5-0, survival 3.5-3, riskRegression 2022.11.28, pROC 1.18.0 (data aSAH). Data: aSAH, survival's pbc and
# lung (times tied by the month), and drawn ones of which 85 % are censored. Risks come from formulas that were not fitted.
suppressMessages({library(rms); library(pROC); library(riskRegression); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
set.seed(7)
tight <- list(epsilon = 1e-14, maxit = 100)
exact <- coxph.control(eps = 1e-13, toler.chol = 1e-15, iter.max = 100)
three <- function(x) unname(quantile(x, c(.1, .5, .9)))
near <- function(gap) c(mean(abs(gap)), unname(quantile(abs(gap), c(.5, .9))))

binary <- function(y, p) {
  x <- qlogis(p)
  fit <- lrm(y ~ rcs(x, three(x)), eps = 1e-14, maxit = 100, tol = 1e-14)
  smooth <- predict(fit, type = "fitted")
  plain <- glm(y ~ rcs(x, three(x)), family = binomial, control = tight)  # the same model by another fitter
  stopifnot(max(abs(smooth - fitted(plain))) < 1e-6)
  recal <- coef(glm(y ~ x, family = binomial, control = tight))
  large <- coef(glm(y ~ offset(x), family = binomial, control = tight))
  v <- val.prob(p, y, pl = FALSE)
  groups <- cut(p, c(-Inf, quantile(p, (1:4) / 5), Inf))
  ci <- sapply(split(y, groups), function(g) prop.test(sum(g), length(g), correct = FALSE)$conf.int)
  list(y = y, p = p, slope = unname(recal[2]), intercept = unname(recal[1]), large = unname(large),
       oe = sum(y) / sum(p), smooth = unname(fitted(plain)), near = near(fitted(plain) - p),
       val.prob = as.list(v[c("Intercept", "Slope", "Eavg", "E90")]), loess = near(predict(
         loess(y ~ p, control = loess.control(surface = "direct"))) - p),
       groups = list(n = as.vector(table(groups)), predicted = as.vector(tapply(p, groups, mean)),
                     observed = as.vector(tapply(y, groups, mean)), lo = ci[1, ], hi = ci[2, ]))
}

atRisk <- function(time, event, risk, when) {
  d <- data.frame(time = pmin(time, when), event = as.integer(event == 1 & time <= when), cll = log(-log(1 - risk)))
  knots <- three(d$cll)
  slope <- coxph(Surv(time, event) ~ cll, data = d, control = exact)
  b <- rcspline.eval(d$cll, knots = knots, inclx = TRUE)
  d$b1 <- b[, 1]; d$b2 <- b[, 2]
  fit <- coxph(Surv(time, event) ~ b1 + b2, data = d, control = exact, x = TRUE)
  surv <- summary(survfit(fit, newdata = d), times = max(d$time[d$event == 1]))$surv
  # as the paper has it: follow-up is not cut at the horizon
  whole <- data.frame(time = time, event = event, b1 = d$b1, b2 = d$b2)
  late <- coxph(Surv(time, event) ~ b1 + b2, data = whole, control = exact, x = TRUE)
  smooth_late <- 1 - predictCox(late, newdata = whole, times = when, type = "survival")$survival[, 1]
  km <- survfit(Surv(time, event) ~ 1, conf.type = "log-log")
  groups <- cut(risk, c(-Inf, quantile(risk, (1:4) / 5), Inf))
  each <- sapply(split(data.frame(time, event), groups), function(g) {
    s <- summary(survfit(Surv(time, event) ~ 1, data = g, conf.type = "log-log"), times = when)
    1 - c(s$surv, s$upper, s$lower)
  })
  observed <- 1 - summary(km, times = when)$surv
  list(time = time, event = event, risk = risk, when = when, slope = unname(coef(slope)), smooth = 1 - as.vector(surv),
       near = near(1 - as.vector(surv) - risk), near_whole = near(smooth_late - risk), observed = observed,
       oe = observed / mean(risk), groups = list(n = as.vector(table(groups)),
         predicted = as.vector(tapply(risk, groups, mean)), observed = each[1, ], lo = each[2, ], hi = each[3, ]))
}

# riskRegression's calibration in groups: Kaplan-Meier in quantiles of the predicted risk
grouped <- function(time, event, risk, when, q) {
  d <- data.frame(time = time, event = event)
  scored <- Score(list(m = matrix(risk, ncol = 1)), Surv(time, event) ~ 1, data = d, times = when, plots = "calibration",
                  metrics = NULL, null.model = FALSE, progress.bar = NULL)
  shown <- plotCalibration(scored, method = "quantile", q = q, cens.method = "local", pseudo = FALSE, plot = FALSE)
  shown$plotFrames$m[, c("Pred", "Obs")]
}

data(aSAH)
saved <- as.integer(aSAH$outcome == "Poor")
n <- 400
z <- rnorm(n)
true <- plogis(-1.5 + z)

p <- pbc[order(pbc$id), ]
pbc_risk <- 1 - exp(-exp(-1.9 + .9 * log(p$bili) + .03 * (p$age - 50) - .9 * (p$albumin - 3.5)) * .9)
l <- lung[complete.cases(lung[, c("time", "status", "age", "ph.ecog")]), ]
months <- ceiling(l$time / 30.4375)
lung_risk <- plogis(-.1 + .02 * (l$age - 60) + .6 * (l$ph.ecog - 1))
lp <- rnorm(n)
t <- rexp(n, .05 * exp(lp)); cen <- pmin(rexp(n, .45), 8)
heavy_time <- round(pmin(t, cen), 1) + .05; heavy_event <- as.integer(t <= cen)
heavy_risk <- 1 - exp(-.05 * 5 * exp(1.4 * lp - .2))

# D-calibration, written apart from ours: one patient and one bin after the other
dcal <- function(s, event, bins = 10) {
  count <- rep(0, bins)
  for (i in seq_along(s)) for (k in 1:bins) {
    a <- (k - 1) / bins; b <- k / bins
    if (event[i] == 1) { if (s[i] >= a && (s[i] < b || k == bins)) count[k] <- count[k] + 1 }
    else if (s[i] >= b) count[k] <- count[k] + (b - a) / s[i]
    else if (s[i] > a) count[k] <- count[k] + (s[i] - a) / s[i]
  }
  # the test of R itself, on counts that are not whole
  test <- suppressWarnings(chisq.test(count, p = rep(1 / bins, bins)))
  list(s = s, event = event, share = count / length(s), chi2 = unname(test$statistic), p = test$p.value)
}
own_s <- exp(-.05 * exp(1.4 * lp - .2) * heavy_time)
lung_s <- (1 - lung_risk)^(months / 12)

write(toJSON(list(
  asah = binary(saved, plogis(-1.2 + 1.2 * log(aSAH$ndka / 10) + .8 * (as.integer(aSAH$wfns) > 3) + .004 * (aSAH$age - 50))),
  drawn = binary(rbinom(n, 1, true), plogis(-1 + 2 * z)),
  pbc = atRisk(p$time, as.integer(p$status == 2), pbc_risk, 1826.25),
  lung = atRisk(months, as.integer(l$status == 2), lung_risk, 12),
  heavy = c(atRisk(heavy_time, heavy_event, heavy_risk, 5), list(censored = mean(heavy_event == 0))),
  riskRegression = grouped(p$time, as.integer(p$status == 2), pbc_risk, 1826.25, 5),
  dcal = dcal(own_s, heavy_event), dcal_lung = dcal(lung_s, as.integer(l$status == 2))
), digits = NA, auto_unbox = TRUE), out)
