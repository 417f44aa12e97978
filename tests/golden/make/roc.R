# Golden values of AUC. Run once: Rscript tests/golden/make/roc.R tests/golden/roc.json
# R 4.2.2, pROC 1.18.0: its own data set aSAH (aneurysmal subarachnoid haemorrhage; ties in the scores).
suppressMessages({library(pROC); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
data(aSAH)
y <- as.integer(aSAH$outcome == "Poor")
auc_of <- function(s) as.numeric(auc(roc(y, s, direction = "<", quiet = TRUE)))
p <- plogis(-1 + 3 * aSAH$s100b)
write(toJSON(list(
  outcome = y, s100b = aSAH$s100b, ndka = aSAH$ndka, wfns = as.integer(aSAH$wfns),
  auc_s100b = auc_of(aSAH$s100b), auc_ndka = auc_of(aSAH$ndka), auc_wfns = auc_of(as.integer(aSAH$wfns)),
  logistic = unname(coef(glm(y ~ s100b + ndka, data = aSAH, family = binomial, control = list(epsilon = 1e-14)))),
  recalibrate = unname(coef(glm(y ~ qlogis(p), family = binomial, control = list(epsilon = 1e-14))))
), digits = NA, auto_unbox = TRUE), out)
