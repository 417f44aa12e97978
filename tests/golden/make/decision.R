# Golden values of net benefit. Run once: Rscript tests/golden/make/decision.R tests/golden/decision.json
# R 4.2.2, survival 3.5-3, pROC 1.18.0 (data aSAH). The formulas of Vickers and Elkin (2006) and of Vickers et al. (2008),
# written out here patient by patient; Kaplan-Meier is that of survival::survfit.
suppressMessages({library(survival); library(pROC); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
set.seed(3)
at <- round(seq(.05, .95, .05), 2)  # the nearest number to .35, as .35 is read

benefit <- function(y, p) sapply(at, function(pt) {
  tp <- 0; fp <- 0
  for (i in seq_along(y)) if (p[i] >= pt) { if (y[i] == 1) tp <- tp + 1 else fp <- fp + 1 }
  tp / length(y) - fp / length(y) * pt / (1 - pt)
})
benefit_at <- function(time, event, risk, when) sapply(at, function(pt) {
  above <- risk >= pt
  if (!any(above)) return(0)
  km <- survfit(Surv(time[above], event[above]) ~ 1)
  s <- tryCatch(summary(km, times = when)$surv, error = function(e) NA)
  if (length(s) == 0) s <- NA
  if (is.na(s) && tail(km$surv, 1) == 0) s <- 0   # all had died before
  mean(above) * (1 - s) - mean(above) * s * pt / (1 - pt)
})

data(aSAH)
y <- as.integer(aSAH$outcome == "Poor")
p <- round(plogis(-1.4 + 3 * aSAH$s100b), 2)                  # ties, some on the thresholds
d <- lung[complete.cases(lung[, c("time", "status", "age", "ph.ecog")]), ]
risk <- round(plogis(-.1 + .02 * (d$age - 60) + .6 * (d$ph.ecog - 1)), 2)
n <- 300
lp <- rnorm(n)
t <- rexp(n, .05 * exp(lp)); cen <- rexp(n, .5)
heavy <- 1 - exp(-.05 * 5 * exp(lp))
write(toJSON(list(
  thresholds = at,
  binary = list(y = y, p = p, benefit = benefit(y, p), all = benefit(y, rep(1, length(y)))),
  lung = list(time = d$time, event = as.integer(d$status == 2), risk = risk, when = 365.25,
              benefit = benefit_at(d$time, d$status == 2, risk, 365.25),
              all = benefit_at(d$time, d$status == 2, rep(1, nrow(d)), 365.25)),
  heavy = list(time = pmin(t, cen), event = as.integer(t <= cen), risk = heavy, when = 5,
               benefit = benefit_at(pmin(t, cen), t <= cen, heavy, 5), all = benefit_at(pmin(t, cen), t <= cen, rep(1, n), 5))
), digits = NA, auto_unbox = TRUE, na = "null"), out)
